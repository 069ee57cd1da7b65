"""Several hosts on one machine, with links of given rates between them.

Each host is a network namespace with a name of its own, joined to the others by
a virtual Ethernet pair and a bridge that is a namespace too. Every host shapes
what it sends: one htb class for each other host, so that each direction of each
link has its rate, under one for the network card that they share. The namespaces live as long as the processes that hold them,
so nothing is left behind, however the laboratory ends.

Needs root (or the capability to make network namespaces), ip and tc.
"""

import ipaddress
import os
import shutil
import subprocess

# Jumbo frames: headers take 0.7 % of the rate instead of 4.4 %.
MTU = 9000
# What a class may send at once above its rate: one frame, so that the rate holds
# for short messages too.
BURST_BYTES = 10_000
# The class of what is lost.
LOST = "1:fffe"
# Where classic BPF finds them (SKF_NET_OFF; SKF_AD_OFF + SKF_AD_RANDOM).
BPF_NETWORK_HEADER, BPF_RANDOM = 0xfff00000, 0xfffff038
AGENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "agent.sh")


def why_not():
    """Why no laboratory can be set up here; None if one can."""
    for tool in ("ip", "tc", "unshare", "nsenter", "mpirun"):
        if shutil.which(tool) is None:
            return f"the program {tool} is not installed"
    try:
        with Network([1, 1], lambda source, target: 1e8):
            return None
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        return f"no namespaces or traffic control: {detail.strip()}"


class Network:
    """Hosts that differ in ranks and links; a context manager.

    ranks: of each host. rate(source, target): bytes per second from one host's
    index to another's. card(host): what the host sends at most, to all others
    together; default: as much as its fastest link.
    """

    def __init__(self, ranks, rate, card=None):
        self.ranks = list(ranks)
        self.rate = rate
        self.card = card or self._fastest
        self._holders = []  # hosts, then the bridge

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for holder in self._holders:
            holder.kill()
            holder.wait()
            holder.stdin.close()
            holder.stdout.close()
        self._holders = []

    def _fastest(self, host):
        return max(self.rate(host, target) for target in range(len(self.ranks))
                   if target != host)

    @staticmethod
    def address(host):
        return f"10.77.0.{host + 1}"

    @property
    def hosts(self):
        """As trireme's --hosts wants them."""
        return ",".join(f"{self.address(host)}:{ranks}"
                        for host, ranks in enumerate(self.ranks))

    def run(self, command, timeout, environment=None):
        """Runs a command on the first host; its standard output.

        Raises CalledProcessError with the output where it fails.
        """
        return self._enter(0, command, timeout=timeout,
                           env=self.environment(environment))

    def start(self, command):
        """Starts a command on the first host; its Popen, output in one pipe."""
        return subprocess.Popen(
            self.inside(0, command), env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)

    def set_link(self, host, state):
        """Takes a host's card "down", or "up" again."""
        self._enter(host, ["ip", "link", "set", "eth0", state])

    def set_rate(self, source, target, bytes_per_s=None):
        """Shapes one direction of a link anew; None: as it was."""
        parent, flow, assured, most = self._flow(source, target)
        if bytes_per_s is not None:
            assured = most = bytes_per_s
        self._set_class("change", source, parent, flow, assured, most)

    def set_heard(self, source, target, heard):
        """Whether what a host sends to another one arrives there."""
        neighbour = ["dev", "eth0", "to", self.address(target)]
        if heard:
            self._enter(source, ["ip", "neigh", "flush", *neighbour, "nud",
                                 "permanent"])
        else:
            # A card that nobody has.
            self._enter(source, ["ip", "neigh", "replace",
                                 self.address(target), "lladdr",
                                 "02:00:00:00:00:01", "nud", "permanent",
                                 "dev", "eth0"])

    def set_loss(self, source, target, share):
        """So much of what a host sends to another one is lost, at random."""
        link = ["dev", "eth0", "parent", "1:", "prio", str(target + 1)]
        if share == 0:
            self._enter(source, ["tc", "filter", "del", *link])
            return
        # Classic BPF: of packets whose destination (IPv4, offset 16) is the
        # target's address those whose random number is small.
        address = int(ipaddress.IPv4Address(self.address(target)))
        program = [(0x20, 0, 0, BPF_NETWORK_HEADER + 16),
                   (0x15, 0, 3, address),
                   (0x20, 0, 0, BPF_RANDOM),
                   (0x25, 1, 0, int(share * 2**32)),
                   (0x06, 0, 0, 0xffffffff),
                   (0x06, 0, 0, 0)]
        text = ",".join(" ".join(map(str, line)) for line in program)
        self._enter(source, ["tc", "filter", "replace", *link, "handle", "1",
                             "protocol", "ip", "bpf", "bytecode",
                             f"{len(program)},{text}", "flowid", LOST])

    def processes(self, host):
        """The processes on a host, but for what holds it."""
        holder = self._holders[host].pid
        own = os.readlink(f"/proc/{holder}/ns/net")
        found = set()
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if (os.readlink(f"/proc/{name}/ns/net") == own and
                        int(name) != holder):
                    found.add(int(name))
            except OSError:
                pass  # It has ended.
        return found

    def environment(self, more=None):
        full = dict(os.environ)
        full.update({
            "OMPI_MCA_plm_rsh_agent": AGENT,
            "OMPI_MCA_plm_rsh_no_tree_spawn": "1",
            "OMPI_MCA_btl_tcp_if_include": "eth0",
            "OMPI_MCA_oob_tcp_if_include": "eth0",
            "LAB_HOSTS": " ".join(
                f"{self.address(host)}={self._holders[host].pid}"
                for host in range(len(self.ranks))),
        })
        full.update(more or {})
        return full

    def inside(self, host, command):
        return ["nsenter", "-t", str(self._holders[host].pid), "-n", "-u",
                *command]

    def _build(self):
        for host in range(len(self.ranks)):
            self._hold(f"host{host}")
        self._hold("bridge")
        bridge = len(self.ranks)
        self._enter(bridge, ["ip", "link", "add", "br0", "mtu", str(MTU),
                             "type", "bridge"])
        self._enter(bridge, ["ip", "link", "set", "br0", "up"])
        for host in range(len(self.ranks)):
            self._connect(host, bridge)
        for host in range(len(self.ranks)):
            self._shape(host)

    def _hold(self, name):
        # Says when it is inside, then waits for its standard input to close.
        holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c",
             f"hostname {name} && echo ready && read -r _"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        self._holders.append(holder)
        if holder.stdout.readline() != "ready\n":
            holder.wait()
            raise OSError(holder.stderr.read())
        holder.stderr.close()

    def _enter(self, host, command, timeout=20, env=None):
        return subprocess.run(
            self.inside(host, command), check=True, text=True, timeout=timeout, env=env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE).stdout

    def _connect(self, host, bridge):
        port = f"port{host}"
        self._enter(bridge, [
            "ip", "link", "add", port, "mtu", str(MTU), "type", "veth",
            "peer", "name", "eth0", "mtu", str(MTU),
            "netns", str(self._holders[host].pid)])
        self._enter(bridge, ["ip", "link", "set", port, "master", "br0", "up"])
        self._enter(host, ["ip", "addr", "add", f"{self.address(host)}/24",
                           "dev", "eth0"])
        self._enter(host, ["ip", "link", "set", "eth0", "up"])
        self._enter(host, ["ip", "link", "set", "lo", "up"])

    def _shape(self, host):
        self._enter(host, ["tc", "qdisc", "add", "dev", "eth0", "root",
                           "handle", "1:", "htb"])
        card = self.card(host)
        self._set_class("add", host, "1:", "1:1", card, card)
        others = [target for target in range(len(self.ranks)) if target != host]
        for target in others:
            parent, flow, assured, most = self._flow(host, target)
            self._set_class("add", host, parent, flow, assured, most)
            self._enter(host, [
                "tc", "filter", "add", "dev", "eth0", "parent", "1:",
                "protocol", "ip", "u32", "match", "ip", "dst",
                f"{self.address(target)}/32", "flowid", flow])
        self._enter(host, ["tc", "class", "add", "dev", "eth0", "parent", "1:",
                           "classid", LOST, "htb", "rate", "8bit"])
        self._enter(host, ["tc", "qdisc", "add", "dev", "eth0", "parent", LOST,
                           "blackhole"])

    # The class of what a host sends to another one: its parent and name, the
    # rate that it is assured, an equal share of the card's, and the most.
    def _flow(self, source, target):
        card = self.card(source)
        most = min(self.rate(source, target), card)
        return ("1:1", f"1:{target + 16:x}",
                min(most, card / (len(self.ranks) - 1)), most)

    def _set_class(self, action, host, parent, name, assured, most):
        self._enter(host, [
            "tc", "class", action, "dev", "eth0", "parent", parent, "classid",
            name, "htb", "rate", f"{round(8 * assured)}bit", "ceil",
            f"{round(8 * most)}bit", "burst", str(BURST_BYTES), "cburst",
            str(BURST_BYTES), "quantum", str(BURST_BYTES)])
