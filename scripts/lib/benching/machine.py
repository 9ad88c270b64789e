"""Processes, users and files of this machine: started, measured, and ended whatever happens."""
import atexit
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# Nothing that is measured takes longer; what does hangs.
LONG = 900
TICKS = os.sysconf("SC_CLK_TCK")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
    "LC_ALL": "C", "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost",
}


class Failed(Exception):
    """Something that a case needs did not work; the others go on."""


running = []


def end_everything():
    """Ends what was started, the latest first."""
    while running:
        thing = running.pop()
        try:
            thing.end()
        except Exception as error:  # the rest has to be ended too
            print(f"bench: {error}", file=sys.stderr)


def end_on_signals():
    """Makes Ctrl-C, SIGTERM and SIGHUP end what was started."""
    def leave(number, _):
        sys.exit(128 + number)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    atexit.register(end_everything)


def in_child(user, work, limit=LONG):
    """Does something in a process of its own, as another user if one is given, and returns what it returns."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            if user is not None and user != os.geteuid():
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            try:
                answer = {"good": work()}
            except BaseException as error:
                answer = {"bad": f"{type(error).__name__}: {error}"}
            with os.fdopen(writer, "w") as out:
                json.dump(answer, out)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    text, until = b"", time.monotonic() + limit
    try:
        while True:
            ready, _, _ = select.select([reader], [], [], max(0, until - time.monotonic()))
            if not ready:
                raise Failed(f"no answer within {limit} s")
            piece = os.read(reader, 1 << 16)
            if not piece:
                break
            text += piece
    finally:
        os.close(reader)
        if time.monotonic() >= until or sys.exc_info()[0] is not None:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    answer = json.loads(text or b'{"bad": "it died"}')
    if "bad" in answer:
        raise Failed(answer["bad"])
    return answer["good"]


def identity(user):
    """Arguments of Popen for a process of this user."""
    if user is None or user == os.geteuid():
        return {}
    return {"user": user, "group": user, "extra_groups": []}


def output(command, user=None, limit=LONG, **options):
    """What a command prints; it has to succeed."""
    command = [str(part) for part in command]
    options.setdefault("env", ENVIRONMENT)
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                              timeout=limit, **identity(user), **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Failed(f"{command[0]}: exit {done.returncode}: {said[-1] if said else ''}")
    return done.stdout, done.stderr


def dd(path, block="1M", user=None):
    """Reads a file from its start to its end; bytes and seconds as dd tells them."""
    _, said = output(["dd", f"if={path}", "of=/dev/null", f"bs={block}"], user)
    found = re.search(r"(\d+) bytes.*copied, ([\d.e+-]+) s", said.decode())
    return {"bytes": int(found[1]), "seconds": max(float(found[2]), 1e-6)}


def curl(url, *options):
    """Downloads to nowhere; bytes and seconds as curl tells them, and its CPU seconds."""
    command = ["curl", "-sS", "-f", "-o", "/dev/null", "-w", "%{size_download} %{time_total}", *options, url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT)
    text = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise Failed(f"curl: exit {process.returncode}")
    size, seconds = text.split()
    return {"bytes": int(size), "seconds": float(seconds), "cpu": usage.ru_utime + usage.ru_stime,
            "peak": usage.ru_maxrss << 10}


def parallel_curls(url, size, count):
    """As many curls as that, each with its part of a file; from the first's start to the last's end."""
    part = -(-size // count)
    begun = time.monotonic()
    curls = [
        subprocess.Popen(["curl", "-sS", "-f", "-o", "/dev/null", "-r",
                          f"{number * part}-{min(size, (number + 1) * part) - 1}", url], env=ENVIRONMENT)
        for number in range(count)
    ]
    codes = [process.wait(LONG) for process in curls]
    if any(codes):
        raise Failed(f"curl: exits {codes}")
    return {"bytes": size, "seconds": time.monotonic() - begun}


def tree(pid):
    """A process and all that descend from it."""
    found = [pid]
    for known in found:
        try:
            for task in os.listdir(f"/proc/{known}/task"):
                found += [int(child) for child in Path(f"/proc/{known}/task/{task}/children").read_text().split()]
        except OSError:
            pass
    return found


def cpu_of(pids):
    """CPU seconds that processes have used so far, their ended children included."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def memory_of(pids, which="VmHWM"):
    """Bytes of memory: the largest of the processes."""
    most = 0
    for pid in pids:
        try:
            found = re.search(rf"{which}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        except OSError:
            continue
        most = max(most, int(found[1]) << 10 if found else 0)
    return most


def is_mounted(point):
    """Whether something of FUSE is mounted there."""
    with open("/proc/self/mountinfo") as table:
        return any(line.split()[4] == str(point) and " - fuse" in line for line in table)


class Process:
    """A process that is ended with the script."""

    def __init__(self, command, log, user=None, **options):
        self.name = Path(str(command[0])).name
        self.log = log
        with open(log, "ab") as file:
            options.setdefault("env", ENVIRONMENT)
            options.setdefault("stdout", file)
            self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL,
                                            stderr=file, start_new_session=True, **identity(user), **options)
        running.append(self)

    def said(self):
        """The end of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:])

    def end(self):
        """Asks it to end, and ends it if it doesn't."""
        if self in running:
            running.remove(self)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                for pid in reversed(tree(self.process.pid)):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                self.process.wait()


def remove(path):
    """Removes a folder, unless something is mounted in it."""
    with open("/proc/self/mountinfo") as table:
        points = [Path(line.split()[4]) for line in table]
    if not any(point.is_relative_to(path) for point in points):
        shutil.rmtree(path, ignore_errors=True)


def quiet_disk():
    """What was written before is not to be written during what is measured next."""
    os.sync()
