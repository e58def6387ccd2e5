"""Train a Transformer, validate it, and test its best checkpoint.

    python -m experiments.train --config=experiments/configs/demo.py --workdir=DIR

Flags override values of the config: --config.optimizer.warmup_steps=8000. Run the same command
again to resume. The last line on stdout is JSON; everything else goes to stderr.

Ctrl-C saves a checkpoint and exits with status 130; a second Ctrl-C exits immediately.

For multi-process training, give each process --coordinator_address=HOST:PORT --num_processes=N
--process_id=I, or --auto_cluster, and otherwise the same flags; experiments/pod/ has a command for
each kind of cluster. Process 0 writes all output.
"""

import json
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import cli, distributed
from experiments.config_io import to_experiment
from experiments.console import COMPILE_HINT, log, print_json
from experiments.signals import INTERRUPTED, exit_now
from experiments.thread_errors import exit_on_thread_error
from train.multihost import is_primary

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of experiments/configs.")
flags.mark_flag_as_required("config")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "Print the resource estimate as a line of JSON, without training or writing files: parameters, "
    "bytes per device (parameters, optimizer, activations), batch shapes, tokens per step.",
)
ALLOW_BATCH_CHANGE = flags.DEFINE_bool(
    "allow_batch_change",
    False,
    "Let a run resume with another data.tokens_per_batch, data.packing, data.num_buckets or "
    "optimizer.grad_accum_steps: it continues at the same fraction of its epoch, in the order of "
    "the new batches.",
)
SIGTERM_STATUS = flags.DEFINE_integer(
    "sigterm_status",
    0,
    "Exit status after SIGTERM and saving: not 0 if the cluster restarts only failed jobs.",
    lower_bound=0,
    upper_bound=255,
)
flags.adopt_module_key_flags(distributed)  # so that --help shows them too


def main() -> None:
    """Run the experiment of the flags."""
    from experiments.dry_run import estimate_resources

    # Imports JAX, after the flags are valid.
    from experiments.setup import set_up
    from experiments.trainer import preempted_before_training, train

    def on_sigterm() -> None:
        exit_now(SIGTERM_STATUS.value, "", json.dumps(preempted_before_training("SIGTERM")))

    experiment, workdir = to_experiment(CONFIG.value), Path(WORKDIR.value)
    from_flags = config_flags.get_override_values(flags.FLAGS["config"]).keys()
    with exit_on_thread_error(), distributed.initialize(experiment.train.heartbeat_timeout_seconds):
        if DRY_RUN.value:
            result = estimate_resources(
                set_up(experiment, workdir, ALLOW_BATCH_CHANGE.value, from_flags)
            )
            log(COMPILE_HINT)
        else:
            result = train(experiment, workdir, ALLOW_BATCH_CHANGE.value, from_flags, on_sigterm)
        if is_primary():
            print_json(result)
    if result.get("stopped_by") == "SIGTERM":
        sys.exit(SIGTERM_STATUS.value)
    if result.get("stopped_by") == "SIGINT":
        log(_interrupt_message(result))
        sys.exit(INTERRUPTED)


def _interrupt_message(result: dict) -> str:
    if "test" in result:
        return "heed: interrupted: the run is complete"
    if result["step"] is None:
        return "heed: interrupted"
    step = result["step"]
    return f"heed: interrupted: checkpoint saved at step {step}; run the same command to resume"


if __name__ == "__main__":
    cli.run(main)
