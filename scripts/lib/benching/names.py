"""Cases about names: long listings, and many files visited."""
import os
import re
import subprocess
import time

from . import machine
from .contenders import measured
from .machine import Failed


def command_time(command):
    """Seconds a command takes, which prints a lot."""
    begun = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=machine.ENVIRONMENT,
                          timeout=machine.LONG, check=False)
    if done.returncode:
        raise Failed(f"{command[0]}: {done.stderr.decode(errors='replace').strip()[-200:]}")
    return {"seconds": time.perf_counter() - begun}


def listing(bench):
    """A record with many files, and a listing of many records."""
    count = max(int(10_000 * bench.scale), 100)
    names = [f"measurement-{number:05}.csv" for number in range(count)]
    record = bench.sandbox.publish("many files", [{"key": name, "text": f"{name}\n"} for name in names])
    local = bench.place / "many"
    local.mkdir()
    for name in names:
        (local / name).write_text(f"{name}\n")
    url = f"{bench.sandbox.url}/api/records/{record}/files"
    if bench.has("jq"):
        counter, asked = ["jq", ".entries | length"], "curl | jq"
    else:
        counter, asked = ["python3", "-c", "import json, sys; print(len(json.load(sys.stdin)['entries']))"], \
            "curl | python3"
    pipeline = " ".join(f"'{word}'" for word in counter)
    warm, again = {}, {}

    def listed(tool):
        with tool.mount(record) as mount:
            folder = str(mount.files)
            sample = measured(bench, mount, lambda: command_time(["ls", "-l", folder]))
            sample["all requests"] = sample["requests"] + sample["metadata"]
            bench.sandbox.reset()
            warm.setdefault(tool.name, []).append(command_time(["ls", "-l", folder]))
            again.setdefault(tool.name, []).append(bench.sandbox.traffic()["metadata"])
        machine.remove(mount.folder)
        return sample

    def here():
        command_time(["ls", "-l", str(local)])
        warm.setdefault("local folder", []).append(command_time(["ls", "-l", str(local)]))
        return warm["local folder"][-1]

    tools = {asked: lambda: command_time(["sh", "-c", f"curl -sS -f '{url}' | {pipeline}"]), "local folder": here,
             "rdmfs": lambda: listed(bench.rdmfs)}
    samples = bench.rounds(f"ls -l of {count:,} files, loopback", tools)
    others = [tool.name for tool in bench.rclones_off[:1]]
    slow = bench.rounds(f"ls -l of {count:,} files by others", {
        tool.name: lambda tool=tool: listed(tool) for tool in bench.rclones_off[:1]}, min(2, bench.runs))
    samples.update(slow)
    what = f"ls -l of {count:,} files"
    bench.keep(f"{what}, warm", warm)
    bench.compare(f"{what}, cold", samples, "rdmfs", asked, "seconds", "<=", 1.5)
    bench.compare(f"{what}, cold", samples, "rdmfs", others, "seconds")
    bench.absolute(f"{what}: requests", samples, "rdmfs", others, "all requests", "", "<=", 2)
    bench.compare(f"{what}, warm", warm, "rdmfs", "local folder", "seconds", "<=", 3)
    if again.get("rdmfs"):
        bench.note(f"{what}, warm: {max(again['rdmfs'])} requests")
    found_records(bench)


def found_records(bench):
    """`find` over the files of the records that a search found."""
    count = max(int(2_000 * bench.scale), 100)
    bench.sandbox.call("/sandbox/publish", [
        {"title": f"Benchfind station {number}", "files": [{"key": "a.txt", "text": "a"}]} for number in range(count)])
    # As many are to be listed, which is more than a mount lists by itself.
    options = ["--search-limit", str(count)]
    bench.rdmfs.options += options
    try:
        mounted = bench.rdmfs.mount("")
    finally:
        del bench.rdmfs.options[-len(options):]
    with mounted as mount:
        bench.sandbox.reset()
        begun = time.perf_counter()
        text, _ = machine.output(["sh", "-c", 'find "$1"/*/files -type f', "sh", f"{mount.point}/search/benchfind"])
        seconds = time.perf_counter() - begun
        log = bench.sandbox.call("/sandbox/requests")
    machine.remove(mount.folder)
    found = len(text.splitlines())
    searches = [one for one in log if one["route"] == "GET search"]
    sizes = [int(size) for one in searches for size in re.findall(r"[?&]size=(\d+)", one["path"])] or [25]
    told = f"{found:,} files, {len(log)} requests, {seconds * 1e3:.0f} ms"
    if found < count:
        raise Failed(f"find saw the files of {found} of {count} records: {told}")
    bench.row(f"find over {count:,} records of a search: requests", told, f"pages of {max(sizes)}", len(log), "",
              "<=", -(-count // max(sizes)))


def inodes(bench):
    """Many files visited, then forgotten by the kernel."""
    records = max(int(500 * bench.scale), 5)
    tool = bench.rdmfs.with_options()
    tool.apart = True
    with tool.mount("") as mount:
        before = mount.memory("VmRSS")
        point = mount.point

        def visit():
            seen = 0
            for number in range(records):
                with os.scandir(f"{point}/records/gen00-{number:05}/files") as found:
                    seen += sum(entry.stat().st_size > 0 for entry in found)
            return seen

        begun = time.perf_counter()
        seen = machine.in_child(None, visit)
        seconds = time.perf_counter() - begun
        after = mount.memory("VmRSS")
        if os.geteuid() == 0:
            machine.in_child(None, lambda: open("/proc/sys/vm/drop_caches", "w").write("2"))
            least, until = after, time.monotonic() + 15
            while time.monotonic() < until:
                time.sleep(0.5)
                now = mount.memory("VmRSS")
                if now >= least and time.monotonic() > until - 10:
                    break
                least = min(least, now)
            left = mount.memory("VmRSS")
        else:
            bench.note("not root: the kernel's caches can't be dropped, and so nothing is said of the target")
            left = after
        peak = mount.memory()
    machine.remove(mount.folder)
    if seen != records * bench.generated_files:
        raise Failed(f"{seen} files were seen")
    mib = 1 << 20
    bench.keep(f"{seen:,} files visited", {"rdmfs": [
        {"before": before, "after": after, "left": left, "peak": peak, "seconds": seconds}]})
    bench.row(f"{seen:,} files visited, caches dropped", f"{before / mib:.0f} MiB at first, {after / mib:.0f} MiB after, "
              f"{left / mib:.0f} MiB in the end", f"{seen / seconds:,.0f} files/s", left / mib, " MiB",
              "<=" if os.geteuid() == 0 else "", 150)
