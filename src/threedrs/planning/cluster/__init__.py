"""The whole workflow on a given cluster, before it starts: jobs, hours, disk, network, wall time.

``settings`` is the cluster, ``figures`` what was measured, ``workload``, ``jobs`` and ``runs`` the
workflow's jobs with their costs, ``schedule`` the simulation, ``estimate`` the plan with its
largest risk, ``table`` its text.
"""
