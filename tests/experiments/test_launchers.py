"""The scripts that start a training on a cluster, run against stand-ins for its commands."""

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
    """Commands that only note how they were called, and what they read."""
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
        done = subprocess.run(
            [POD / script, *args], env=os.environ | dict(PATH=path) | env, capture_output=True
        )
        assert done.returncode == status, done.stderr
        return json.loads((tmp_path / "called").read_text())

    return run


def test_a_tpu_pod_slice(cluster):
    name, args, _ = cluster("tpu.sh", "pod", "--zone=eu", "--", *FLAGS, HEED="/opt/he")
    assert name == "gcloud"
    assert args[:-1] == "compute tpus tpu-vm ssh pod --zone=eu --worker=all".split()
    # What the workers' shells make of it are the flags as they were given.
    command = args[-1].removeprefix("--command=cd /opt/he && exec .venv/bin/python ")
    show = f"{sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' {command}"
    seen = subprocess.run(["bash", "-c", show], capture_output=True, check=True).stdout
    assert json.loads(seen) == ["-m", "experiments.train", "--auto_cluster", *FLAGS]


def test_slurm(cluster):
    size = "--nodes=2", "--ntasks-per-node=8"
    name, args, _ = cluster("slurm.sh", *size, "--", *FLAGS, SLURM_JOB_ID="")
    assert name == "sbatch" and args[:2] == ["--requeue", "--signal=TERM@60"]
    assert args[2:4] == [*size] and args[4:] == [str(POD / "slurm.sh"), "--", *FLAGS]
    # Then sbatch runs the script again, in the job.
    job = dict(SLURM_JOB_ID="7", SLURM_JOB_NAME="slurm.sh", PYTHON="py")
    name, args, _ = cluster("slurm.sh", *args[5:], **job)
    assert name == "srun" and args[:2] == ["--label", "--kill-on-bad-exit=0"]
    ran = ["py", "-m", "experiments.train", "--auto_cluster", "--sigterm_status=143", *FLAGS]
    assert args[2:] == ran
    # A run that was told to end goes back into the queue, one that failed does not.
    told = cluster("slurm.sh", "--", *FLAGS, **job, SRUN="143", status=143)
    assert told[:2] == ["scontrol", ["requeue", "7"]]
    assert cluster("slurm.sh", "--", *FLAGS, **job, SRUN="1", status=1)[0] == "srun"
    # In an allocation of one's own options are srun's, and nothing is queued.
    job["SLURM_JOB_NAME"] = "interactive"
    name, args, _ = cluster("slurm.sh", "--nodes=1", "--", *FLAGS, **job, SRUN="143", status=143)
    assert name == "srun" and args[2:] == ["--nodes=1", *ran]


def test_a_kubernetes_jobset(cluster):
    given = "--name=big", "--image=reg:5/heed&1", "--num_processes=4", "--limit=google.com/tpu=8"
    given += ("--select=gke/topology=2x4", "--select=pool=a")
    name, args, read = cluster("jobset.sh", *given, "--claim=disk", "--", *FLAGS)
    assert (name, args) == ("kubectl", ["apply", "-f", "-"]) and "@" not in read
    told = yaml.safe_load(read)
    assert told["kind"] == "JobSet" and told["spec"]["network"]["subdomain"] == "big"
    (workers,) = told["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert job["completions"] == job["parallelism"] == 4 and job["completionMode"] == "Indexed"
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {"gke/topology": "2x4", "pool": "a"}
    (container,) = pod["containers"]
    assert container["image"] == "reg:5/heed&1"
    assert container["resources"]["limits"] == {"google.com/tpu": 8}
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "disk"
    _, _, read = cluster("jobset.sh", *given[:-2], "--claim=disk", "--", *FLAGS)
    (workers,) = yaml.safe_load(read)["spec"]["replicatedJobs"]
    assert workers["template"]["spec"]["template"]["spec"]["nodeSelector"] == {}
    with pytest.raises(AssertionError, match="must be 1 or more"):
        cluster("jobset.sh", *given, "--num_processes=four", "--claim=disk", "--", *FLAGS)
    command = container["command"]
    where = command.index("--coordinator_address=big-workers-0-0.big:8476")
    assert command[where + 1 : where + 3] == ["--num_processes=4", "--process_id=$(PROCESS)"]
    # Kubernetes reads $$( as $( and no variable.
    assert [flag.replace("$$(", "$(") for flag in command[-len(FLAGS) :]] == FLAGS


@pytest.mark.parametrize("script", ["tpu.sh", "slurm.sh", "jobset.sh"])
def test_flags_that_are_missing_are_answered_with_an_example(script):
    done = subprocess.run([POD / script, "--"], capture_output=True, text=True)
    assert (
        done.returncode == 2 and done.stderr.startswith("usage: ") and "-- --config" in done.stderr
    )


def test_shell_is_sound():
    shellcheck = shutil.which("shellcheck", path=os.path.dirname(sys.executable))
    shellcheck = shellcheck or shutil.which("shellcheck")
    rooms = (
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
    scripts = [script for room in rooms for script in (ROOT / room).rglob("*.sh")]
    scripts.append(ROOT / ".ci" / "run")
    assert len(scripts) > 3
    if not shellcheck:
        pytest.skip("shellcheck comes with the extra [dev]; .ci/run runs it as well")
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
