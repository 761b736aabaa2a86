# The configuration, checked, and the lists that the rules expand over (threedrs.workflow.targets).

import sys
from pathlib import Path

# This checkout, also where another workflow uses it as a module (config/README.md).
ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
# The modules that the rules watch, whatever package the environment was set up with.
sys.path.insert(0, str(ROOT / "src"))
for name in [name for name in [*sys.modules] if name.partition(".")[0] == "threedrs"]:
    del sys.modules[name]  # the logger plugin may have brought another clone's

from snakemake.logging import logger
from snakemake.persistence import PersistenceBase
from snakemake.settings.enums import Quietness

from threedrs.config.yaml_files import check_yaml, main_config, overlaid, parse_values
from threedrs.config.load import load_config
from threedrs.config.resources import PREDICT_NEEDS, TRAIN_NEEDS
from threedrs.tasks.registry import annotation_files, find_task
from threedrs.workflow import processes, rule_helpers, targets
from threedrs.workflow.code_hash import code_changes, code_hash
from threedrs.workflow.locks import remove_dead_lock
from threedrs.workflow.moved_inputs import compare_by_content, missing_records
from threedrs.workflow.rule_helpers import checked, in_force, more_each_time
from threedrs.workflow.run_screen import show_workflow
from threedrs.workflow.slurm_watch import patch_executor

checked(processes.prepare_snakemake, ROOT)
compare_by_content(PersistenceBase)
patch_executor(sys.modules.get("snakemake_executor_plugin_slurm"))

MAIN = checked(main_config, ROOT)
if workflow.is_main_process:
    copied = missing_records(Path("results"), Path(".snakemake/metadata"))
    for line in filter(None, [copied, remove_dead_lock(Path(".snakemake"))]):
        logger.warning(f"threedrs: {line}")
    # Snakemake does not say where a file has a slip, and takes a key that stands twice.
    checked(check_yaml, [MAIN, *workflow.overwrite_configfiles])
    checked(rule_helpers.check_amounts, workflow.resource_settings)
    checked(rule_helpers.check_cores, workflow.resource_settings.cores)


configfile: MAIN


# A module has its whole configuration from its user. (To Snakemake, `is_module` is the workflow
# that was started, too.)
if workflow.modifier.parent_modifier is None:
    if workflow.is_main_process:  # a module's user has rules of other names
        checked(
            rule_helpers.check_rule_names,
            workflow.resource_settings,
            ROOT / "workflow/rules",
        )
    # Snakemake makes strings of all scalars within a section.
    typed = checked(parse_values, workflow.config_settings.config_args)
    config = overlaid(config, typed)
CONFIG = checked(load_config, config)
TARGETS = checked(targets.Targets, CONFIG)
show_workflow(workflow, TARGETS.names())
LAYOUT, DATA, DEMO = TARGETS.layout, TARGETS.data, TARGETS.demo
SCENE_SHARDS, CAPTURE_SHARDS = TARGETS.scene_shards, TARGETS.capture_shards
STORE_SHARDS = {**SCENE_SHARDS, **CAPTURE_SHARDS}
SPLITS = "|".join(["train", "val", "test", *TARGETS.captures])
FEATURE_SHARDS, TEACHERS = TARGETS.feature_shards, TARGETS.teachers
RESOLVED, RUNS, TRAINED = TARGETS.resolved, list(TARGETS.resolved), TARGETS.trained
MIXES, BENCHMARKS, CONTROLS = TARGETS.mixes, TARGETS.benchmarks, TARGETS.controls


def code(stage=None, *entries, script=None, **more):
    """The hash of the code that a stage runs: edited code makes its results stale."""
    script = script and ROOT / "workflow/scripts" / f"{script}.py"
    return code_hash(stage, *entries, script=script, **more)


def gate(check, *arguments):
    """No file, as an input; stops where the check finds a fault."""
    return rule_helpers.gate(workflow.is_main_process, check, *arguments)


# What a rule is called where another workflow uses this one as a module. Taken now, as `workflow`
# has the modifier of a module only while it reads the module.
called = workflow.modifier.modify_rulename


def asked(wildcards):
    """No file, as an input of a stage; stops where a stage that is asked for has nothing to make.

    In `onstart`, which Snakemake does not call for a module, it would be overlooked there.
    """
    return gate(TARGETS.check_asked, workflow.dag_settings.targets, called)


onstart:
    # Neither for a dry run nor for a job's own process; the table not with --quiet.
    for line in filter(None, [code_changes(Path("results"))]):
        logger.warning(f"threedrs: {line}")
    shown = {"quietness": Quietness.PROGRESS, "shown": True}
    logger.info(TARGETS.scan_table(), extra=shown)
