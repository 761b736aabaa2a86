"""3DRS as one reproducible workflow: ScanNet scans in, five benchmark scores out."""

__version__ = "0.1.0"


def package_versions(*names: str) -> dict[str, str]:
    """Return the versions of this package and of the packages ``names``, for a result's record."""
    from importlib.metadata import version

    return {"threedrs": __version__, **{name: version(name) for name in names}}
