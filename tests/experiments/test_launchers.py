"""Cluster launch scripts, run with stand-ins for the cluster's commands."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.experiments.commands import ROOT

POD = ROOT / "experiments" / "pod"
FLAGS = ["--config=a.py", "--workdir=/runs/my run", '--config.data.path=$(HOME)/"x"\\n;&']


@pytest.fixture
def cluster(tmp_path):
    """Stand-in commands that record their arguments and input."""
    for name in "gcloud", "sbatch", "srun", "scontrol", "kubectl":
        path = tmp_path / name
        path.write_text(
            f"#!{sys.executable}\n"
            "import json, os, sys\n"
            "read = sys.stdin.read() if '-' in sys.argv else ''\n"
            f"json.dump([{name!r}, sys.argv[1:], read], open({str(tmp_path / 'called')!r}, 'w'))\n"
            f"sys.exit(int(os.environ.get({name.upper()!r}, 0)))\n"
        )
        path.chmod(0o755)

    def run(script, *args, status=0, **env):
        path = f"{tmp_path}:{os.environ['PATH']}"
        process = subprocess.run(
            [POD / script, *args], env=os.environ | dict(PATH=path) | env, capture_output=True
        )
        assert process.returncode == status, process.stderr
        return json.loads((tmp_path / "called").read_text())

    return run


def test_a_tpu_pod_slice(cluster):
    name, args, _ = cluster("tpu.sh", "pod", "--zone=eu", "--", *FLAGS, HEED="/opt/he")
    assert name == "gcloud"
    assert args[:-1] == "compute tpus tpu-vm ssh pod --zone=eu --worker=all".split()
    # The workers' shells parse the command to the given flags.
    command = args[-1].removeprefix("--command=cd /opt/he && exec .venv/bin/python ")
    show = f"{sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' {command}"
    output = subprocess.run(["bash", "-c", show], capture_output=True, check=True).stdout
    assert json.loads(output) == ["-m", "experiments.train", "--auto_cluster", *FLAGS]


def test_slurm(cluster):
    size = "--nodes=2", "--ntasks-per-node=8"
    name, args, _ = cluster("slurm.sh", *size, "--", *FLAGS, SLURM_JOB_ID="")
    assert name == "sbatch" and args[:2] == ["--requeue", "--signal=TERM@60"]
    assert args[2:4] == [*size] and args[4:] == [str(POD / "slurm.sh"), "--", *FLAGS]
    # sbatch runs the script again, in the job.
    job = dict(SLURM_JOB_ID="7", SLURM_JOB_NAME="slurm.sh", PYTHON="py")
    name, args, _ = cluster("slurm.sh", *args[5:], **job)
    assert name == "srun" and args[:2] == ["--label", "--kill-on-bad-exit=0"]
    expected = ["py", "-m", "experiments.train", "--auto_cluster", "--sigterm_status=143", *FLAGS]
    assert args[2:] == expected
    # A preempted run is requeued, a failed one is not.
    call = cluster("slurm.sh", "--", *FLAGS, **job, SRUN="143", status=143)
    assert call[:2] == ["scontrol", ["requeue", "7"]]
    assert cluster("slurm.sh", "--", *FLAGS, **job, SRUN="1", status=1)[0] == "srun"
    # In an interactive allocation, options are passed to srun and nothing is queued.
    job["SLURM_JOB_NAME"] = "interactive"
    name, args, _ = cluster("slurm.sh", "--nodes=1", "--", *FLAGS, **job, SRUN="143", status=143)
    assert name == "srun" and args[2:] == ["--nodes=1", *expected]


def test_a_kubernetes_jobset(cluster):
    arguments = (
        "--name=big",
        "--image=reg:5/heed&1",
        "--num_processes=4",
        "--limit=google.com/tpu=8",
    )
    arguments += ("--select=gke/topology=2x4", "--select=pool=a")
    name, args, read = cluster("jobset.sh", *arguments, "--claim=disk", "--", *FLAGS)
    assert (name, args) == ("kubectl", ["apply", "-f", "-"]) and "@" not in read
    manifest = yaml.safe_load(read)
    assert manifest["kind"] == "JobSet" and manifest["spec"]["network"]["subdomain"] == "big"
    (workers,) = manifest["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert job["completions"] == job["parallelism"] == 4 and job["completionMode"] == "Indexed"
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {"gke/topology": "2x4", "pool": "a"}
    (container,) = pod["containers"]
    assert container["image"] == "reg:5/heed&1"
    assert container["resources"]["limits"] == {"google.com/tpu": 8}
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "disk"
    _, _, read = cluster("jobset.sh", *arguments[:-2], "--claim=disk", "--", *FLAGS)
    (workers,) = yaml.safe_load(read)["spec"]["replicatedJobs"]
    assert workers["template"]["spec"]["template"]["spec"]["nodeSelector"] == {}
    with pytest.raises(AssertionError, match="must be 1 or more"):
        cluster("jobset.sh", *arguments, "--num_processes=four", "--claim=disk", "--", *FLAGS)
    command = container["command"]
    index = command.index("--coordinator_address=big-workers-0-0.big:8476")
    assert command[index + 1 : index + 3] == ["--num_processes=4", "--process_id=$(PROCESS)"]
    # Kubernetes replaces $$( by $( without expanding it.
    assert [flag.replace("$$(", "$(") for flag in command[-len(FLAGS) :]] == FLAGS


@pytest.mark.parametrize("script", ["tpu.sh", "slurm.sh", "jobset.sh"])
def test_missing_flags_print_usage(script):
    process = subprocess.run([POD / script, "--"], capture_output=True, text=True)
    assert (
        process.returncode == 2
        and process.stderr.startswith("usage: ")
        and "-- --config" in process.stderr
    )


def test_shellcheck_passes():
    shellcheck = shutil.which("shellcheck", path=os.path.dirname(sys.executable))
    shellcheck = shellcheck or shutil.which("shellcheck")
    folders = (
        "experiments",
        "benchmarks",
        "data",
        "decode",
        "interop",
        "model",
        "serve",
        "train",
        "tests",
    )
    scripts = [script for folder in folders for script in (ROOT / folder).rglob("*.sh")]
    scripts.append(ROOT / ".ci" / "run")
    assert len(scripts) > 3
    if not shellcheck:
        pytest.skip("shellcheck comes with the extra [dev]; .ci/run runs it as well")
    process = subprocess.run([shellcheck, *scripts], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
