"""The server and the programs that are compared: the sandbox, and mounts by rdmfs, rclone and httpdirfs."""
import itertools
import json
import os
import subprocess
import time
import urllib.request

from . import machine
from .machine import Failed

GIB = 1 << 30
CONTENT = {"GET content", "GET plain", "GET object"}


class Sandbox(machine.Process):
    """The repository, which serves its files as a plain folder too."""

    def __init__(self, binary, place, *options):
        self.token = None
        super().__init__([binary, "--empty", *options], place / "sandbox.log", stdout=subprocess.PIPE)
        line = self.process.stdout.readline().decode().split()
        if line[:1] != ["ready"]:
            raise Failed(f"the sandbox does not start: {self.said()}")
        self.url = line[1]
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, path, body=None, method=None):
        """A request and its answer, both JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        with self.opener.open(request, timeout=machine.LONG) as answer:
            return json.loads(answer.read() or b"null")

    def publish(self, title, files):
        """A published record; its id."""
        return self.call("/sandbox/publish", [{"title": title, "files": files}])["ids"][0]

    def wire(self, mode="ranges", delay=0, each=None, link=None):
        """The way to it: milliseconds to connect and again to answer, bytes per second of a connection and of all."""
        self.call("/sandbox/knobs", {"mode": mode, "latency_ms": delay, "connect_ms": delay, "bandwidth": each,
                                     "link": link})

    def reset(self):
        self.settle()
        self.call("/sandbox/reset-counts", {})

    def settle(self):
        """Waits until nothing is sent any more; for two seconds at most, since a client may keep a stream open."""
        before, until = None, time.monotonic() + 2
        while time.monotonic() < until:
            log = self.call("/sandbox/requests")
            now = (len(log), sum(one["sent"] for one in log))
            if now == before:
                return
            before = now
            time.sleep(0.1)

    def traffic(self):
        """What was asked since the reset: requests for content, their bytes, and other requests."""
        self.settle()
        log = self.call("/sandbox/requests")
        content = [one for one in log if one["method"] == "GET" and one["route"] in CONTENT]
        total = self.call("/sandbox/counts")["total"]
        return {"requests": len(content), "fetched": sum(one["sent"] for one in content),
                "metadata": total - len(content)}

    def content_url(self, record, key):
        return f"{self.url}/api/records/{record}/files/{key}/content"


class Mount(machine.Process):
    """A mount by one of the programs."""

    def __init__(self, tool, point, files, command, log, user, environment):
        self.tool, self.point, self.files, self.user = tool, point, files, user
        self.peak = 0
        super().__init__(command, log, user, env=environment)
        until = time.monotonic() + 30
        while not machine.is_mounted(point):
            if self.process.poll() is not None or time.monotonic() > until:
                self.end()
                raise Failed(f"{tool.name} does not mount: {self.said()}")
            time.sleep(0.01)
        try:
            # Its root alone: a listing would be known before it is measured.
            machine.in_child(user, lambda: os.stat(point).st_mode, 60)
        except Failed:
            self.end()
            raise

    def path(self, key):
        return f"{self.files}/{key}"

    def look(self, key):
        """Makes names and sizes known, as a listing does."""
        return machine.in_child(self.user, lambda: os.stat(self.path(key)).st_size, 300)

    def pids(self):
        return machine.tree(self.process.pid)

    def cpu(self):
        return machine.cpu_of(self.pids())

    def memory(self, which="VmHWM"):
        now = machine.memory_of(self.pids(), which)
        if which == "VmHWM":
            self.peak = max(self.peak, now)
            self.tool.peak = max(self.tool.peak, now)
        return now

    def end(self):
        self.memory()
        if self in machine.running:
            machine.running.remove(self)
        if self.tool.kind != "rdmfs" and machine.is_mounted(self.point):
            # These don't unmount when they are told to end while something is still busy.
            command = ["fusermount3", "-u", str(self.point)]
            for _ in range(50):
                if subprocess.run(command, stderr=subprocess.DEVNULL, check=False,
                                  **machine.identity(self.user)).returncode == 0:
                    break
                time.sleep(0.1)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                pass
        super().end()
        if machine.is_mounted(self.point):
            lazy = ["umount", "-l", str(self.point)] if os.geteuid() == 0 else ["fusermount3", "-uz", str(self.point)]
            subprocess.run(lazy, stderr=subprocess.DEVNULL, check=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Tool:
    """A program with settings, that can mount a record's files."""

    numbers = itertools.count()

    def __init__(self, bench, name, kind, options=(), caches=True):
        self.bench, self.name, self.kind, self.options, self.caches = bench, name, kind, list(options), caches
        self.peak = 0

    def with_options(self, *options):
        tool = Tool(self.bench, self.name, self.kind, [*self.options, *options], self.caches)
        self.bench.tools.append(tool)
        return tool

    def folder(self, user=None):
        """A folder for the mount point and the cache."""
        folder = self.bench.place / f"{self.kind}-{next(self.numbers)}"
        (folder / "mnt").mkdir(parents=True)
        if user is not None:
            for path in (folder, folder / "mnt"):
                os.chown(path, user, user)
        return folder

    def mount(self, record, user=None, folder=None):
        """Mounts a record of the sandbox, with the cache of an earlier mount if its folder is given."""
        folder = folder or self.folder(user)
        point, url = folder / "mnt", self.bench.sandbox.url
        files = point
        environment = dict(machine.ENVIRONMENT, HOME=str(folder), XDG_CONFIG_HOME=str(folder / "config"),
                           XDG_CACHE_HOME=str(folder / "xdg"), XDG_STATE_HOME=str(folder / "xdg-state"))
        if self.kind == "rdmfs":
            files = f"{point}/records/{record}/files"
            command = [self.bench.binary, "mount", "--foreground", "--cache-dir", folder / "cache", "--state-dir",
                       folder / "state", *self.options, url, point]
        elif self.kind == "rclone":
            command = [self.bench.rclone, "mount", "--config", "/dev/null", "--read-only", "--cache-dir",
                       folder / "cache", "--http-url", f"{url}/plain/{record}/", *self.options, ":http:", point]
        else:
            cache = ["--cache", "--cache-location", folder / "cache"] if self.caches else []
            if cache:
                (folder / "cache").mkdir(exist_ok=True)
            command = [self.bench.httpdirfs, "-f", "--no-range-check", *cache, *self.options,
                       f"{url}/plain/{record}/", point]
        mount = Mount(self, point, files, command, self.bench.place / f"{folder.name}.log", user, environment)
        mount.folder = folder
        return mount


def measured(bench, mount, work):
    """Does something with a mount: what that tells, and what it cost the program and the server."""
    bench.sandbox.reset()
    before = mount.cpu()
    sample = work()
    sample["cpu"] = mount.cpu() - before
    sample["peak"] = mount.memory()
    sample.update(bench.sandbox.traffic())
    return sample
