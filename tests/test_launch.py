"""The scripts of launch/: valid, and what each would run answers a dry run."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nanogpt2.launching import SHUTDOWN_SECONDS
from tests.waiting import PATIENCE, wait_until

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh"))
RUN1_STEPS = "16,704"


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return str(listener.getsockname()[1])


@pytest.fixture
def cluster(tmp_path):
    """An environment with stand-ins for Slurm's commands, this Python, and one rank a machine."""
    for name, body in (
        ("scontrol", "echo localhost"),
        ("srun", 'while [[ "$1" == --* ]]; do shift; done; exec "$@"'),
    ):
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "RANKS": "1",
        "PORT": free_port(),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_valid_and_executable(name):
    assert os.access(LAUNCH / name, os.X_OK)
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)


def test_slurm_runs_the_real_command(cluster, tmp_path):
    slurm = {"SLURM_JOB_NODELIST": "n1", "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7"}
    ran = subprocess.run(
        [LAUNCH / "slurm.sh", "--recipe", "run1", "--out", str(tmp_path / "run"), "--dry-run"],
        env=cluster | slurm,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ran.returncode == 0, ran.stderr
    assert RUN1_STEPS in ran.stdout and str(tmp_path / "run") in ran.stdout
    assert not (tmp_path / "run").exists()


def test_slurms_job_is_queued_again_when_its_time_is_up(cluster, tmp_path):
    """SIGTERM reaches the run, which is waited for; then its job goes back into the queue."""
    bin = Path(cluster["PATH"].partition(os.pathsep)[0])
    (bin / "scontrol").write_text('#!/usr/bin/env bash\necho "$@" >> "$LOG"\necho localhost\n')
    (bin / "srun").write_text(
        "#!/usr/bin/env bash\ntrap 'sleep 0.2; echo saved >> \"$LOG\"; exit 143' TERM\n"
        'echo "cores $SRUN_CPUS_PER_TASK" >> "$LOG"\nwhile true; do sleep 0.05; done\n'
    )
    log = tmp_path / "log"
    slurm = {"SLURM_JOB_NODELIST": "n1", "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7"}
    slurm |= {"SLURM_CPUS_PER_TASK": "64", "LOG": str(log)}
    script = subprocess.Popen([LAUNCH / "slurm.sh"], env=cluster | slurm)
    wait_until(lambda: log.exists() and "cores" in log.read_text())
    script.terminate()
    assert script.wait(PATIENCE) == 143
    assert log.read_text().splitlines()[1:] == ["cores 64", "saved", "requeue 7"]


def test_skypilot_runs_the_real_command(cluster):
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert set(task) <= {
        "name", "resources", "num_nodes", "workdir", "envs", "file_mounts", "setup", "run"
    }  # fmt: skip
    assert task["setup"].strip() == "make install-gpu"
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=task[part], text=True, check=True)
    sky = {
        "SKYPILOT_NUM_NODES": "1",
        "SKYPILOT_NUM_GPUS_PER_NODE": "1",
        "SKYPILOT_NODE_IPS": "localhost\n10.0.0.2",
    }
    asked = {**task["envs"], "ARGUMENTS": "--dry-run"}
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", task["run"]],
        env=cluster | sky | asked,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ran.returncode == 0, ran.stderr
    assert RUN1_STEPS in ran.stdout and "/runs/run1" in ran.stdout


def test_ranks_have_the_time_of_a_save(cluster, tmp_path):
    """torch kills after 30 s, and Slurm when its own time is up."""
    (tmp_path / "python").write_text("#!/usr/bin/env bash\necho $TORCH_ELASTIC_SHUTDOWN_TIMEOUT\n")
    (tmp_path / "python").chmod(0o755)
    cluster["PYTHON"] = str(tmp_path / "python")
    cluster.pop("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", None)
    told = subprocess.check_output([LAUNCH / "torchrun.sh"], env=cluster, text=True)
    assert int(told) == SHUTDOWN_SECONDS
    slurm = (LAUNCH / "slurm.sh").read_text()
    assert int(re.search(r"--signal=B:TERM@(\d+)", slurm)[1]) == SHUTDOWN_SECONDS


@pytest.mark.parametrize(
    ("capability", "extra"), [("9.0", "fa3"), ("10.0", "fa4"), ("8.9", None), ("7.5", None)]
)
def test_a_gpu_gets_the_kernel_that_is_its_fastest(tmp_path, capability, extra):
    for name, body in (("nvidia-smi", f"echo {capability}"), ("uv", 'echo "uv $@"')):
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = ["make", "--silent", "-o", "install", "install-gpu", "PY=true"]
    told = subprocess.check_output(command, env={**os.environ, "PATH": path}, cwd=ROOT, text=True)
    assert told.split()[-1:] == ([f".[{extra}]"] if extra else [])


def test_two_machines_meet_and_only_the_first_rank_speaks(cluster, tmp_path):
    command = [LAUNCH / "torchrun.sh", "--recipe", "run1", "--dry-run", "--out", tmp_path / "run"]
    machines = [
        subprocess.Popen(
            command,
            env=cluster | {"NNODES": "2", "HEAD_ADDRESS": "localhost"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [machine.communicate(timeout=PATIENCE) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    said = [out for out, _ in outputs if out]
    assert len(said) == 1 and RUN1_STEPS in said[0]
    assert "processes   2" in said[0]
