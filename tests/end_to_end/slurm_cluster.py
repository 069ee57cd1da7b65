"""A Slurm of its own on this machine: munged, slurmctld and a slurmd a node.

Nothing of it is the system's: configuration, sockets, state and logs lie in one
folder, and all processes end with it. Needs root, since slurmd starts tasks for
others, and Debian's packages slurm-wlm and munge.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import test_cases

PATIENCE_S = 400

CONFIGURATION = """
ClusterName=laboratory
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is queued again waits for so long.
AuthInfo=socket={folder}/munge/socket,cred_expire=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
# PMIx refuses two nodes with one temporary folder.
TmpFS={folder}/tmp/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/linear
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
# A node that does not answer is down after so long.
SlurmdTimeout=10
SchedulerParameters=sched_interval=2,batch_sched_delay=0
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=INFINITE
"""


def why_not():
    """Why no cluster can be set up here; None if one can."""
    if os.geteuid() != 0:
        return "not root"
    missing = test_cases.missing_program("slurmctld", "slurmd", "srun",
                                         "sbatch", "munged", "mpirun")
    if missing:
        return missing
    try:
        pwd.getpwnam("munge")
    except KeyError:
        return "no user 'munge'"
    return None


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """Nodes n1, n2 .. of one processor each; a context manager."""

    def __init__(self, nodes):
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        # The user munge must get to its part.
        self.folder = tempfile.mkdtemp(prefix="trireme.slurm.", dir="/tmp")
        os.chmod(self.folder, 0o711)
        self.environment = {
            name: value for name, value in os.environ.items()
            if not name.startswith(("SLURM_", "PMIX_", "OMPI_"))}
        self.environment.update(
            SLURM_CONF=os.path.join(self.folder, "slurm.conf"),
            OMP_NUM_THREADS="1")
        self._daemons = {}

    def __enter__(self):
        try:
            self._configure()
            self._start_munge()
            self._start("slurmctld", "slurmctld", "-D", "-c")
            for node in self.nodes:
                self.start_node(node)
            self.await_that(
                lambda: self.states() == {node: "idle" for node in self.nodes},
                "the nodes to be idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for job in self._own_jobs():
            self.run("scancel", "--full", job, check=False)
        for node in self.nodes:
            self.kill_node(node)
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # What is asked of Slurm.

    def run(self, *command, check=True, cwd=None):
        """A command's standard output; AssertionError where it fails."""
        done = subprocess.run(
            command, cwd=cwd, env=self.environment, text=True, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=PATIENCE_S)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: status {done.returncode}: "
                                 f"{done.stdout}")
        return done.stdout

    def states(self):
        """{node: its state}, as sinfo names them."""
        lines = self.run("sinfo", "-h", "-N", "-o", "%N %T", check=False)
        return dict(line.split() for line in lines.splitlines()
                    if len(line.split()) == 2)

    def job(self, number):
        """What `scontrol show job` says of a job, by field."""
        text = self.run("scontrol", "show", "job", "-o", str(number))
        return dict(field.split("=", 1) for field in text.split()
                    if "=" in field)

    def nodes_of(self, number):
        """The nodes on which a job runs."""
        listed = self.job(number)["NodeList"]
        return self.run("scontrol", "show", "hostnames", listed).split()

    def await_that(self, condition, what):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            result = condition()
            if result:
                return result
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {PATIENCE_S} s for {what}: "
                                     f"{self.states()}\n{self._logs()}")
            time.sleep(0.05)

    # What befalls nodes.

    def start_node(self, node):
        self._start(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node):
        """As a power cut: the daemon, the steps' managers and the tasks."""
        daemon = self._daemons.pop(node, None)
        if daemon is None:
            return
        daemon.kill()
        daemon.wait()
        for process in self._processes_of(node):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def resume_node(self, node):
        if node not in self._daemons:
            self.start_node(node)
        self.run("scontrol", "update", f"nodename={node}", "state=resume",
                 check=False)
        self.await_that(lambda: self.states()[node] == "idle",
                        f"{node} to be idle")

    # The managers first, so that none reports the end of its tasks.
    def _processes_of(self, node):
        managers, tasks = [], []
        for process in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                with open(f"/proc/{process}/environ", "rb") as file:
                    environment = file.read().split(b"\0")
                with open(f"/proc/{process}/stat", encoding="utf-8") as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue  # It has ended.
            mine = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
            if (mine in environment and
                    f"SLURMD_NODENAME={node}".encode() in environment):
                tasks.append(process)
                if self._is_manager(parent) and parent not in managers:
                    managers.append(parent)
        return managers + tasks

    @staticmethod
    def _is_manager(process):
        try:
            with open(f"/proc/{process}/comm", encoding="utf-8") as file:
                return file.read().strip().startswith("slurmstepd")
        except OSError:
            return False

    # Its daemons.

    def _configure(self):
        for name in ("munge", "spool", "state", "tmp"):
            os.mkdir(os.path.join(self.folder, name), 0o755)
        ports = free_ports(len(self.nodes) + 1)
        host = socket.gethostname().split(".")[0]
        text = CONFIGURATION.format(host=host, port=ports[0],
                                    folder=self.folder)
        for node, port in zip(self.nodes, ports[1:]):
            os.mkdir(os.path.join(self.folder, "tmp", node))
            text += (f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 "
                     f"Port={port} CPUs=1 State=UNKNOWN\n")
        with open(self.environment["SLURM_CONF"], "w",
                  encoding="utf-8") as file:
            file.write(text)

    def _start_munge(self):
        folder = os.path.join(self.folder, "munge")
        user = pwd.getpwnam("munge")
        key = os.path.join(folder, "key")
        with open(key, "wb") as file:
            file.write(os.urandom(1024))
        for path in (folder, key):
            os.chown(path, user.pw_uid, user.pw_gid)
        os.chmod(key, 0o400)
        self._start("munged", "munged", "--foreground", "--num-threads=1",
                    *(f"--{name}-file={folder}/{name}"
                      for name in ("key", "pid", "log", "seed")),
                    f"--socket={folder}/socket", user="munge", group="munge",
                    extra_groups=[])
        self.await_that(lambda: os.path.exists(f"{folder}/socket"),
                        "munged's socket")

    def _start(self, name, *command, **options):
        with open(os.path.join(self.folder, f"{name}.out"), "a",
                  encoding="utf-8") as output:
            self._daemons[name] = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, cwd="/",
                start_new_session=True, **options)

    def _own_jobs(self):
        listed = self.run("squeue", "-h", "-o", "%A", check=False).split()
        return filter(str.isdigit, listed)

    def _logs(self):
        text = ""
        for name in ("slurmctld.log", *(f"{node}.log" for node in self.nodes)):
            try:
                with open(os.path.join(self.folder, name), encoding="utf-8",
                          errors="replace") as file:
                    text += f"{name}:\n{file.read()[-2000:]}\n"
            except OSError:
                pass
        return text
