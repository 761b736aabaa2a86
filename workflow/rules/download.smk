# Files from the Hugging Face Hub; an empty list `download` in the config makes no rule.
#
# in:
#   config = the list download: repository, revision, files, folder
# out:
#   file = the folder that the list names
# by hand:
#   snakemake --cores 1 FOLDER/FILE


for number, (entry, file) in enumerate(
    (entry, file) for entry in TARGETS.downloads for file in entry.files
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
            entry=entry.to_json(),
            file=file,
        message:
            "Download of {params.file}"
        script:
            "../scripts/download.py"
