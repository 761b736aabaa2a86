# in:  the config's list `download` (empty: this file makes no rule)
# out: each listed file, from the Hugging Face Hub, where the list says


for number, (entry, file) in enumerate(
    (entry, file) for entry in DOWNLOADS for file in entry.files
):

    rule:
        name:
            f"download_{number}"
        output:
            (Path(entry.to) / file).as_posix(),
        log:
            f"results/logs/download/{number}.log",
        conda:
            "../../envs/data.yaml"
        resources:
            runtime=720,
        params:
            entry={**vars(entry), "files": list(entry.files)},
            file=file,
        message:
            "Download of {params.file}"
        script:
            "../scripts/download.py"
