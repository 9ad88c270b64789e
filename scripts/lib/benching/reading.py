"""Cases that read whole files: cold, over a wire, without ranges, and again."""
import os

from . import machine
from .contenders import GIB, measured
from .machine import Failed


def pass_over(bench, tool, record, key, user=None):
    """One cold pass over a file in a mount and a cache of its own."""
    machine.quiet_disk()
    with tool.mount(record, user) as mount:
        size = mount.look(key)
        sample = measured(bench, mount, lambda: machine.dd(mount.path(key), user=user))
        if sample["bytes"] != size:
            raise Failed(f"{tool.name}: {sample['bytes']} of {size} bytes")
        if tool.kind == "rdmfs" and tool.name not in bench.summed:
            bench.summed.add(tool.name)
            found = machine.output(["md5sum", mount.path(key)], user)[0].split()[0].decode()
            if found != bench.checksum(record, key):
                raise Failed(f"{tool.name}: the bytes are wrong: md5 {found}")
    machine.remove(mount.folder)
    return sample


def cold(bench):
    """L1: a first pass over a large file, over loopback."""
    size = bench.size
    record = bench.record("one large file", [("large.bin", size)])
    url = bench.sandbox.content_url(record, "large.bin")
    tools = {"curl": lambda: machine.curl(url)}
    for tool in [bench.rdmfs, bench.rdmfs_uncached, *bench.rclones_full, *bench.rclones_off]:
        tools[tool.name] = lambda tool=tool: pass_over(bench, tool, record, "large.bin")
    user = bench.users()[-1][0]
    if user is not None and os.geteuid() == 0:
        tools["rdmfs, as a user"] = lambda: pass_over(bench, bench.rdmfs, record, "large.bin", user)
    full = [tool.name for tool in bench.rclones_full]
    off = [tool.name for tool in bench.rclones_off]
    samples = bench.rounds(f"{size / GIB:.3g} GiB over loopback", tools, rivals=[full, off])
    bench.compare("sequential, cached and checked", samples, "rdmfs", "curl", "rate", ">=", 0.30)
    bench.compare("sequential, cached and checked", samples, "rdmfs", full, "rate", ">=", 1.7)
    if "rdmfs, as a user" in tools:
        bench.compare("sequential, cached and checked, as a user", samples, "rdmfs, as a user", "curl", "rate")
    bench.compare("sequential, no disk cache, checked", samples, bench.rdmfs_uncached.name, "curl", "rate", ">=", 0.5)
    bench.compare("sequential, no disk cache, checked", samples, bench.rdmfs_uncached.name, off, "rate", ">=", 1.2)
    if bench.httpdirfs:
        # It takes a request for each 128 KiB: a small file and fewer runs tell enough.
        part = min(size // 32, 8 << 20)
        small = bench.record("one file for httpdirfs", [("part.bin", part)])
        both = {tool.name: lambda tool=tool: pass_over(bench, tool, small, "part.bin")
                for tool in [bench.rdmfs, *bench.httpdirfses]}
        slow = bench.rounds(f"{part / (1 << 20):.0f} MiB over loopback", both, 2)
        bench.compare(f"sequential, {part >> 20} MiB", slow, "rdmfs",
                      [tool.name for tool in bench.httpdirfses], "rate")


def wire(bench):
    """L2: 40 ms away with a cap on each connection, and a link that all share."""
    def far(size):
        """A file far away, and where curl finds it."""
        record = bench.record("a file far away", [("far.bin", size)])
        return size, record, bench.sandbox.content_url(record, "far.bin")

    size, record, url = far(max(bench.size // 4, 64 << 20))
    bench.sandbox.wire(delay=40, each=25_000_000)
    few = max(size // 4, 16 << 20)
    alone = bench.rounds("one curl, 40 ms, 25 MB/s each", {"one curl": lambda: machine.curl(url, "-r", f"0-{few - 1}")},
                         min(2, bench.runs))["one curl"]
    for count in (4, 8):
        # As long on the wire with each number of connections.
        size, record, url = far(max(bench.size // 16, 16 << 20) * count)
        rdmfs = bench.rdmfs.with_options("--connections", count)
        rclones = [tool.with_options("--vfs-read-chunk-streams", count, "--vfs-read-chunk-size", "8M")
                   for tool in bench.plain_rclones]
        tools = {"curls": lambda: machine.parallel_curls(url, size, count)}
        for tool in [rdmfs, *rclones]:
            tools[tool.name] = lambda tool=tool: pass_over(bench, tool, record, "far.bin")
        samples = bench.rounds(f"{size >> 20} MiB, 40 ms, 25 MB/s each, {count} connections", tools,
                               rivals=[[tool.name for tool in rclones]])
        samples = {**samples, "one curl": alone}
        bench.compare(f"40 ms, 25 MB/s each, {count} connections", samples, "rdmfs", "curls", "rate", ">=", 0.95)
        bench.compare(f"40 ms, 25 MB/s each, {count} connections", samples, "rdmfs", "one curl", "rate", ">=",
                      3.4 if count == 4 else 0)
        bench.compare(f"40 ms, 25 MB/s each, {count} connections", samples, "rdmfs",
                      [tool.name for tool in rclones], "rate")
    link = 125_000_000
    bench.sandbox.wire(delay=40, link=link)
    size, record, url = far(max(bench.size // 4, 64 << 20))
    rclones = [tool.with_options("--vfs-read-chunk-streams", 4, "--vfs-read-chunk-size", "8M")
               for tool in bench.plain_rclones]
    tools = {"curl": lambda: machine.curl(url)}
    for tool in [bench.rdmfs, *rclones]:
        tools[tool.name] = lambda tool=tool: pass_over(bench, tool, record, "far.bin")
    samples = bench.rounds(f"{size >> 20} MiB, 40 ms, 1 Gbit/s shared", tools, rivals=[[tool.name for tool in rclones]])
    samples = {**samples, "the link": [{"bytes": link, "seconds": 1.0}]}
    bench.compare("40 ms, 1 Gbit/s shared", samples, "rdmfs", "the link", "rate", ">=", 0.95)
    bench.compare("40 ms, 1 Gbit/s shared", samples, "rdmfs", "curl", "rate")
    bench.compare("40 ms, 1 Gbit/s shared", samples, "rdmfs", [tool.name for tool in rclones], "rate")


def noranges(bench):
    """L3: a server that ignores ranges."""
    ways = [
        ("loopback", bench.size // 2, {}, 0.30),
        ("40 ms, 25 MB/s each", max(bench.size // 16, 16 << 20), {"delay": 40, "each": 25_000_000}, 0.95),
    ]
    for way, size, wire_is, goal in ways:
        record = bench.record(f"no ranges, {way}", [("whole.bin", size)])
        url = bench.sandbox.content_url(record, "whole.bin")
        bench.sandbox.wire(mode="ignored", **wire_is)
        tools = {"curl": lambda url=url: machine.curl(url),
                 "rdmfs": lambda record=record: pass_over(bench, bench.rdmfs, record, "whole.bin")}
        samples = bench.rounds(f"{size >> 20} MiB, ranges ignored, {way}", tools)
        bench.compare(f"ranges ignored, {way}", samples, "rdmfs", "curl", "rate", ">=", goal)


def warm(bench):
    """L4: after unmount and mount, from the disk cache and from the page cache."""
    size = bench.size
    record = bench.record("one large file", [("large.bin", size)])
    copy = bench.place / "plain.bin"
    machine.output(["curl", "-sS", "-f", "-o", copy, bench.sandbox.content_url(record, "large.bin")])
    copy.chmod(0o644)
    machine.dd(copy)
    if os.geteuid() != 0:
        bench.note("not root: passthrough is left out")
    for user, name in bench.users():
        # Otherwise it notes what it has of a file only 5 s after that was closed, and loses it all at an unmount.
        full = [tool.with_options("--vfs-handle-caching", "0s") for tool in bench.rclones_full[:1]]
        folders = {}
        for tool in [bench.rdmfs, *full]:
            with tool.mount(record, user) as mount:
                machine.dd(mount.path("large.bin"), user=user)
                bench.sandbox.settle()
            folders[tool.name] = mount.folder
        machine.quiet_disk()

        def again(tool):
            """A new mount: what it takes from its disk cache, and then from the kernel's page cache."""
            bench.sandbox.reset()
            with tool.mount(record, user, folders[tool.name]) as mount:
                path = mount.path("large.bin")
                before = mount.cpu()
                first = machine.dd(path, user=user)
                first |= {"cpu": mount.cpu() - before, "peak": mount.memory()} | bench.sandbox.traffic()
                if tool.kind != "rdmfs":
                    return {"disk": first}
                second = machine.dd(path, user=user)
                small = machine.dd(path, "4k", user=user)
            return {"disk": first, "pages": second, "small": small}

        def plain():
            return {"disk": machine.dd(copy, user=user), "small": machine.dd(copy, "4k", user=user)}

        tools = {"plain file": plain}
        for tool in [bench.rdmfs, *full]:
            tools[tool.name] = lambda tool=tool: again(tool)
        rounds = bench.rounds(f"again, {name}", tools, keep=False)

        def of(part):
            return {tool: [one.get(part, one["disk"]) for one in found] for tool, found in rounds.items()
                    if part in found[0] or tool == "plain file"}

        disk, pages, small = of("disk"), of("pages"), of("small")
        for part, found in (("disk cache, 1 MiB reads", disk), ("page cache, 1 MiB reads", pages),
                            ("page cache, 4 KiB reads", small)):
            bench.keep(f"{part}, {name}", found)
        others = [tool.name for tool in full]
        if user is None:
            # Root's daemon may hand its cache file to the kernel.
            bench.compare("again, root, 1 MiB reads", disk, "rdmfs", "plain file", "rate", ">=", 0.9)
            bench.compare("once more, root, 4 KiB reads", small, "rdmfs", "plain file", "rate")
        else:
            bench.compare("again, a user, page cache, 1 MiB reads", pages, "rdmfs", "plain file", "rate", ">=", 0.3)
            bench.compare("again, a user, page cache, 4 KiB reads", small, "rdmfs", "plain file", "rate", ">=", 0.8)
        bench.compare(f"again, {name}, disk cache", disk, "rdmfs", others, "rate", *((">=", 3) if user else ()))
        if disk.get("rdmfs"):
            content, others = (max(one[kind] for one in disk["rdmfs"]) for kind in ("requests", "metadata"))
            bench.row(f"again, {name}: requests for content", f"{content}, and {others} others since the mount", "",
                      content, "", "<=", 0)
        for folder in folders.values():
            machine.remove(folder)
    copy.unlink()
