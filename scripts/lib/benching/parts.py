"""Cases that read parts of files, and many files at once."""
import json
import os
import random
import time
from pathlib import Path

from . import machine
from .contenders import GIB, measured
from .machine import Failed

HERE = Path(__file__).resolve().parent


def timed_reads(path, offsets):
    """Opens a file and reads 4 KiB at each offset; the seconds each took, the first with the opening."""
    times = []
    begun = time.perf_counter()
    file = os.open(path, os.O_RDONLY)
    for offset in offsets:
        if len(os.pread(file, 4096, offset)) != 4096:
            raise Failed("a short read")
        now = time.perf_counter()
        times.append(now - begun)
        begun = now
    os.close(file)
    return times


def scattered_reads(path, offsets, readers):
    """Reads 4 KiB at each offset, spread over processes that have the file open; seconds in all."""
    begun = time.perf_counter()
    children = []
    for number in range(readers):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                timed_reads(path, offsets[number::readers])
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        raise Failed("a reader failed")
    return time.perf_counter() - begun


def point(bench):
    """L5: 4 KiB in the middle of a large file, what follows, and random reads."""
    size = bench.size // 2
    record = bench.record("a file to look into", [("middle.bin", size)])
    url = bench.sandbox.content_url(record, "middle.bin")
    middle = size // 2
    bench.sandbox.wire(delay=40)
    span = f"{middle}-{middle + 4095}"

    def kept():
        """The second request of a curl, on the connection of the first."""
        text, _ = machine.output(["curl", "-sS", "-f", "-r", span, "-w", "%{time_total} ", "-o", "/dev/null", "-o",
                                  "/dev/null", url, url])
        return {"seconds": float(text.split()[1])}

    def first(tool):
        sample = {}
        for name, offsets in (("one", [middle]), ("two", [middle, middle + (192 << 10)])):
            with tool.mount(record) as mount:
                mount.look("middle.bin")
                bench.sandbox.reset()
                times = machine.in_child(None, lambda offsets=offsets, mount=mount: timed_reads(
                    mount.path("middle.bin"), offsets))
                traffic = bench.sandbox.traffic()
            machine.remove(mount.folder)
            if name == "one":
                sample = {"seconds": times[0], **traffic}
            else:
                sample |= {"next": times[1], "requests of both": traffic["requests"]}
        return sample

    tools = {"curl -r": lambda: machine.curl(url, "-r", span), "curl -r, kept connection": kept}
    for tool in [bench.rdmfs, *bench.rclones_off[:1], *bench.rclones_full[:1]]:
        tools[tool.name] = lambda tool=tool: first(tool)
    samples = bench.rounds(f"4 KiB in the middle of {size / GIB:.3g} GiB, 40 ms", tools)
    others = [tool.name for tool in [*bench.rclones_off[:1], *bench.rclones_full[:1]]]
    bench.compare("open and 4 KiB, 40 ms", samples, "rdmfs", "curl -r", "seconds", "<=", 1.2)
    bench.compare("open and 4 KiB, 40 ms", samples, "rdmfs", "curl -r, kept connection", "seconds")
    bench.compare("open and 4 KiB, 40 ms", samples, "rdmfs", others, "seconds")
    bench.absolute("open and 4 KiB: content requests", samples, "rdmfs", others, "requests", "", "<=", 1)
    bench.absolute("open and 4 KiB: KiB sent", samples, "rdmfs", others, "fetched", " KiB", "<=", 256, 1024)
    bench.absolute("4 KiB 192 KiB on: time", samples, "rdmfs", others, "next", " ms", "", 0, 1e-3)
    bench.absolute("content requests of both reads", samples, "rdmfs", others, "requests of both", "", "<=", 2)

    bench.sandbox.wire()
    count = 1000

    def scattered(tool):
        chosen = random.Random(bench.seed())
        offsets = [chosen.randrange(size // 4096) * 4096 for _ in range(count)]
        with tool.mount(record) as mount:
            mount.look("middle.bin")
            sample = measured(bench, mount, lambda: {"reads": count, "seconds": machine.in_child(
                None, lambda: scattered_reads(mount.path("middle.bin"), offsets, 8))})
        machine.remove(mount.folder)
        sample["requests per read"] = sample["requests"] / count
        sample["fetched per read"] = sample["fetched"] / count
        return sample

    what = f"{count:,} random 4 KiB reads, 8 readers"
    tools = {tool.name: lambda tool=tool: scattered(tool)
             for tool in [bench.rdmfs, *bench.rclones_off[:1], *bench.rclones_full[:1]]}
    samples = bench.rounds(f"{what}, loopback", tools)
    bench.compare(what, samples, "rdmfs", others, "reads", ">=", 6)
    bench.absolute("random reads: content requests each", samples, "rdmfs", others, "requests per read", "", "<=", 1)
    bench.absolute("random reads: KiB sent for each", samples, "rdmfs", others, "fetched per read", " KiB", "<=", 256,
                   1024)


def partial(bench):
    """L6: programs that read a part of a large file."""
    if not bench.python:
        raise Failed("needs h5py, netCDF4 and pyarrow in a virtual environment, which could not be made")
    data = bench.target / "bench/data"
    data.mkdir(parents=True, exist_ok=True)
    script = HERE / "datasets.py"
    size = bench.size // 2
    made = json.loads(machine.output([bench.python, script, "make", data, size])[0])
    files = {name: Path(one["path"]) for name, one in made.items()}
    record = bench.lent("files of parts", list(files.values()))
    bench.sandbox.wire(delay=40, each=25_000_000)
    # Each has the cap to itself, so that they take no longer together than the largest alone; once is enough of it.
    urls = {name: bench.sandbox.content_url(record, path.name) for name, path in files.items()}
    bench.say("downloading all of each, once")
    curls = {name: bench.beside(lambda url=url: machine.curl(url)) for name, url in urls.items()}
    whole = {name: wait() for name, wait in curls.items()}

    def run(tool, name):
        with tool.mount(record) as mount:
            path = mount.path(files[name].name)
            mount.look(files[name].name)
            if name == "zip":
                def work():
                    begun = time.perf_counter()
                    text, _ = machine.output(["unzip", "-p", path, made[name]["member"]])
                    if len(text) != made[name]["needed"]:
                        raise Failed(f"unzip gave {len(text)} bytes")
                    return {"seconds": time.perf_counter() - begun}
            else:
                def work():
                    return json.loads(machine.output([bench.python, script, name, path, made[name]["member"]])[0])
            sample = measured(bench, mount, work)
        machine.remove(mount.folder)
        return sample

    titles = {"netcdf": "h5py, one variable", "parquet": "pyarrow, 2 of 50 columns", "zip": "unzip -p of one member"}
    for name, title in titles.items():
        if name == "zip" and not bench.has("unzip"):
            bench.note("unzip is not installed")
            continue
        tools = {tool.name: lambda tool=tool, name=name: run(tool, name) for tool in [bench.rdmfs,
                                                                                      *bench.rclones_off[:1]]}
        total, needed = files[name].stat().st_size, made[name]["needed"]
        samples = bench.rounds(f"{title} of {total / GIB:.2f} GiB, 40 ms, 25 MB/s each", tools)
        samples["curl of all of it"] = [whole[name]]
        if not samples.get("rdmfs"):
            continue
        limit = 1.5 * needed + (2 << 20)
        bench.absolute(f"{title}: MiB sent for {needed / (1 << 20):.1f}", samples, "rdmfs",
                       [tool.name for tool in bench.rclones_off[:1]], "fetched", " MiB", "<=",
                       round(limit / (1 << 20), 1), 1 << 20)
        ours = bench.median(samples["rdmfs"], "seconds")
        fetched = bench.median(samples["rdmfs"], "fetched")
        faster = whole[name]["seconds"] / ours
        bench.row(f"{title}: how much faster, to how much less is sent", f"{ours * 1e3:.0f} ms",
                  f"all of it by curl {whole[name]['seconds']:.1f} s: {faster:.0f} × as fast, "
                  f"{total / fetched:.0f} × less sent", faster / (total / fetched), " ×", ">=", 1)


def memory(bench):
    """L7: 64 readers of 64 files at once."""
    each = max(bench.size // 128, 1 << 20)
    record = bench.record("64 files", [(f"part-{number:02}.bin", each) for number in range(64)])

    def readers(tool):
        with tool.mount(record) as mount:
            mount.look("part-00.bin")

            def work():
                paths = [mount.path(f"part-{number:02}.bin") for number in range(64)]
                return {"bytes": each * 64, "seconds": machine.in_child(None, lambda: read_all(paths))}

            sample = measured(bench, mount, work)
        machine.remove(mount.folder)
        return sample

    tools = {tool.name: lambda tool=tool: readers(tool) for tool in [bench.rdmfs, bench.rdmfs_uncached,
                                                                    *bench.rclones_full[:1], *bench.rclones_off[:1]]}
    samples = bench.rounds(f"64 readers of {each >> 20} MiB each, loopback", tools)
    for tool in (bench.rdmfs, bench.rdmfs_uncached):
        others = [other.name for other in (bench.rclones_full if tool is bench.rdmfs else bench.rclones_off)[:1]]
        bench.absolute(f"64 readers of 64 files, {tool.name}: peak", samples, tool.name, others, "peak", " MiB", "<=",
                       200, 1 << 20, most=True)
        bench.compare(f"64 readers of 64 files, {tool.name}", samples, tool.name, others, "rate")


def read_all(paths):
    """Reads files from start to end, each in a process of its own; seconds in all."""
    begun = time.perf_counter()
    children = []
    for path in paths:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                place = bytearray(1 << 20)
                with open(path, "rb", buffering=0) as file:
                    while file.readinto(place):
                        pass
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        raise Failed("a reader failed")
    return time.perf_counter() - begun
