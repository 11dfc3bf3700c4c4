"""What the kernel cache decides without compiling: keys, fingerprints, objects, compilers, patches, notes."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.servers import Pilotlight, free_port

torch = pytest.importorskip("torch")
pytest.importorskip("pilotlight._native")

from pilotlight import _forks  # noqa: E402
from pilotlight._native import Client  # noqa: E402 - skipped without it
from pilotlight.torch import compiler, cpp_key, cpp_place, cpp_remote, elf, fingerprint, once  # noqa: E402
from pilotlight.torch.cpp_remote import EPOCH_KEY, Remote  # noqa: E402

X86 = "processor\t: 0\nvendor_id\t: {vendor}\nmodel\t\t: {model}\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t: x\n"
TORCH = str(Path(torch.__file__).parent)


def cpuinfo(directory: Path, name: str, **values: str) -> str:
    path = directory / name
    path.write_text(X86.format(**{"vendor": "AuthenticAMD", "model": "17", "flags": "fpu avx2 avx512f hypervisor", **values}))
    return str(path)


@pytest.fixture
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.mark.usefixtures("x86")
def test_features_count_and_noise_does_not(tmp_path: Path) -> None:
    here = fingerprint.cpu_features(cpuinfo(tmp_path, "here"))
    assert here is not None
    assert fingerprint.cpu_features(cpuinfo(tmp_path, "kernel", flags="avx512f avx2 fpu ibrs md_clear")) == here
    assert fingerprint.cpu_features(cpuinfo(tmp_path, "small", flags="fpu avx2")) != here
    assert fingerprint.cpu_features(cpuinfo(tmp_path, "new", flags="fpu avx2 avx512f unheard_of")) != here


@pytest.mark.usefixtures("x86")
def test_the_model_counts_for_machine_code_only(tmp_path: Path) -> None:
    one, other = cpuinfo(tmp_path, "one"), cpuinfo(tmp_path, "other", model="18")
    assert fingerprint.cpu_features(one) == fingerprint.cpu_features(other)
    assert fingerprint.cpu_model(one) != fingerprint.cpu_model(other)


def test_a_cpu_that_cannot_be_told_is_not_guessed(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("processor: 0\n")
    assert fingerprint.cpu_model(str(empty)) is None
    assert fingerprint.cpu_model(str(tmp_path / "absent")) is None
    assert fingerprint.runtime_libraries("libabsent.so.6") is None


def test_the_c_and_cxx_libraries_of_this_process_are_named() -> None:
    libraries = fingerprint.runtime_libraries()
    assert libraries is not None
    libc, libstdcxx = libraries
    assert libc.startswith("glibc ")
    assert libstdcxx.startswith("libstdc++.so.6.")


def test_graphs_without_cpu_code_fit_every_host() -> None:
    assert fingerprint.fingerprint(["cuda"]) is None
    assert fingerprint.fingerprint(["cuda:1", "meta"]) is None


def test_the_picked_isa_and_the_features_are_in_a_graphs_fingerprint() -> None:
    fitting = fingerprint._graph_fingerprint(("avx512", "512", "-mavx512f"), "2")
    assert len(fitting) == 32
    assert fitting != fingerprint._graph_fingerprint(("avx2", "256", "-mavx2"), "2")
    assert fitting != fingerprint._graph_fingerprint(("avx512", "512", "-mavx512f"), "4")


def test_lists_of_parts_do_not_run_into_each_other() -> None:
    assert fingerprint.digest_of("ab", "c") != fingerprint.digest_of("a", "bc") != fingerprint.digest_of("abc")


def test_places_of_torch_python_and_compiler_are_not_in_the_key() -> None:
    here = f"g++ i -D A -march=native -I{TORCH}/include -I{TORCH}/include/torch/csrc/api/include -o o.so -L{TORCH}/lib"
    assert TORCH not in cpp_key.portable(here)
    assert cpp_key.portable(here) == cpp_key.portable(here.replace("g++ ", "/opt/gcc/bin/g++-12 ", 1))


@pytest.mark.parametrize(
    "change", ["-I/opt/other/include", "-O2", f"-Wl,-rpath,{TORCH}/lib", "-L/opt/lib", "-DNDEBUG", "a.cpp"]
)
def test_everything_else_is_in_the_key(change: str) -> None:
    assert cpp_key.portable(f"g++ i {change}") != cpp_key.portable("g++ i")
    assert change in cpp_key.portable(f"g++ i {change}")


def test_the_way_that_torch_2_6_writes_a_command_line_loses_nothing() -> None:
    plain = f"g++ i -O3 -I{TORCH}/include -mavx2"
    assert cpp_key.portable(repr(plain)) == cpp_key.portable(plain)
    assert cpp_key.portable(repr(plain)) != cpp_key.portable(repr(plain.replace("avx2", "avx512f")))
    for broken in ("'", "''", "", "g++", "'g++' -O3 'x", "b'g++ i'"):
        assert cpp_key.portable(broken) == broken


def test_key_depends_on_source_command_host_compiler_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    gcc = compiler.Compiler("g++", b"1" * 32, read=True)
    source = cpp_key.Source("int main;", "g++ i", "int x;", "g++ i -O3")
    keys = {
        cpp_key.kernel(cpp_key.base(gcc, b"h"), source),
        cpp_key.kernel(cpp_key.base(gcc, b"i"), source),
        cpp_key.kernel(cpp_key.base(compiler.Compiler("g++", b"2" * 32, read=True), b"h"), source),
        cpp_key.kernel(cpp_key.base(gcc, b"h"), cpp_key.Source("int main;", "g++ i", "int y;", "g++ i -O3")),
        cpp_key.kernel(cpp_key.base(gcc, b"h"), cpp_key.Source("int main;", "g++ i", "int x;", "g++ i -O1")),
        cpp_key.kernel(cpp_key.base(gcc, b"h"), cpp_key.Source("int main;", "g++ i")),
    }
    monkeypatch.setenv("CPLUS_INCLUDE_PATH", "/opt/headers")
    keys.add(cpp_key.kernel(cpp_key.base(gcc, b"h"), source))
    assert len(keys) == 7
    assert all(key.startswith(b"cpp-kernel:") for key in keys)


def test_objects_that_link_files_of_this_machine_do_not_travel() -> None:
    assert cpp_key.is_portable(())
    assert cpp_key.is_portable(["-O2", "-DNAME=1", "-ffast-math", "-mavx2", "-std=c++20"])
    for named in ("-lcustom", "@flags", "-include", "ops.h", "-fplugin=ours", "-Wl,-rpath,lib", "-Iinclude"):
        assert not cpp_key.is_portable([named]), f"{named} is read from somewhere"
    assert not cpp_key.is_portable(["/tmp/cache/kernel.so"])
    assert not cpp_key.is_portable("-L/opt/lib -lcustom")


def a_shared_object() -> bytes:
    import _ctypes

    return Path(_ctypes.__file__ or "").read_bytes()


def test_a_whole_object_for_this_machine_is_accepted() -> None:
    assert elf.fault(a_shared_object()) is None


@pytest.mark.parametrize("size", [0, 4, 63, 64, 1000, 5000, -1])
def test_a_cut_object_is_refused(size: int) -> None:
    assert elf.fault(a_shared_object()[:size]) is not None


def test_objects_for_other_machines_are_refused() -> None:
    whole = a_shared_object()
    assert elf.fault(whole[:4] + b"\x01" + whole[5:]) is not None  # 32 bits
    assert elf.fault(whole[:5] + b"\x02" + whole[6:]) is not None  # big-endian
    assert "machine" in (elf.fault(whole[:18] + struct.pack("<H", 0x1234) + whole[20:]) or "")
    assert elf.fault(whole[:16] + struct.pack("<H", 2) + whole[18:]) is not None  # a program
    assert elf.fault(Path(sys.executable).resolve().read_bytes()[:40]) is not None


def script(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_gcc_driver_is_known_by_its_file_wherever_it_lies(tmp_path: Path) -> None:
    real = compiler.identify("g++")
    if real is None or not real.read:
        pytest.skip("g++ is no GCC driver here")
    copy = tmp_path / "bin" / "g++-copy"
    copy.parent.mkdir()
    copy.symlink_to(os.path.realpath(shutil.which("g++") or ""))
    other = compiler.identify(str(copy))
    assert other is not None
    assert other.digest == real.digest


def test_a_front_for_a_compiler_is_asked_and_its_place_does_not_count(tmp_path: Path) -> None:
    says = "echo COLLECT_GCC=$0 >&2; echo 'Target: x86_64-linux-gnu' >&2; echo 'gcc version 12.2.0' >&2"
    one = compiler.identify(script(tmp_path / "a" / "g++", says))
    two = compiler.identify(script(tmp_path / "b" / "g++", says))
    three = compiler.identify(script(tmp_path / "c" / "g++", says.replace("12.2.0", "13.1.0")))
    assert one is not None
    assert two is not None
    assert three is not None
    assert not one.read
    assert one.digest == two.digest != three.digest


def test_a_compiler_that_says_nothing_has_no_identity(tmp_path: Path) -> None:
    assert compiler.identify(str(tmp_path / "absent")) is None
    assert compiler.identify(script(tmp_path / "mute", "exit 0")) is None
    assert compiler.identify(script(tmp_path / "broken", "echo gcc version 1; exit 1")) is None


def test_an_object_is_placed_whole_with_the_linkers_mode(tmp_path: Path) -> None:
    binary = tmp_path / "kernel.so"
    assert cpp_place.place(str(binary), str(tmp_path / "lock"), b"object")
    assert binary.read_bytes() == b"object"
    assert stat.S_IMODE(binary.stat().st_mode) == 0o777 & ~umask()
    assert cpp_place.place(str(binary), str(tmp_path / "lock"), b"another")
    assert binary.read_bytes() == b"object"


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        placed = cpp_place.place(str(tmp_path / "kernel.so"), str(tmp_path / "lock"), b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not placed
    assert [path.name for path in tmp_path.iterdir() if path.name != "lock"] == []


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not cpp_place.place(str(tmp_path / "file" / "kernel.so"), str(tmp_path / "lock"), b"object")


def test_an_error_of_ours_is_not_the_users() -> None:
    @once.guarded(otherwise=7)
    def broken() -> int:
        raise RuntimeError("ours")

    assert broken() == 7


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Pilotlight]:
    with Pilotlight(tmp_path / "data") as running:
        yield running


HOST, OTHER_HOST = b"h" * 32, b"o" * 32


def remote(server: Pilotlight, directory: Path, host: bytes = HOST) -> tuple[Remote, Any]:
    client = Client(f"pilotlight://{server.host}:{server.port}")
    return Remote(client, host, str(directory)), client


def test_an_entry_for_another_host_or_key_is_a_miss(server: Pilotlight, tmp_path: Path) -> None:
    here, client = remote(server, tmp_path / "a")
    assert here.put(b"cpp-kernel:1", b"object")
    there, _ = remote(server, tmp_path / "b", OTHER_HOST)
    assert there.get(b"cpp-kernel:1") is None
    assert here.put(b"cpp-kernel:1", b"object")
    entry = client.get_many([b"cpp-kernel:1"])[0]
    client.put(b"cpp-kernel:2", entry.artifact, fingerprint=entry.fingerprint, components=entry.components)
    client.put(b"cpp-kernel:3", entry.artifact)
    assert here.get_many([b"cpp-kernel:1", b"cpp-kernel:2", b"cpp-kernel:3"]) == [b"object", None, None]


def test_what_was_put_is_noted_until_the_remote_is_emptied(server: Pilotlight, tmp_path: Path) -> None:
    first, _ = remote(server, tmp_path)
    assert first.lacks(b"cpp-kernel:1")
    assert first.put(b"cpp-kernel:1", b"object")
    assert not first.lacks(b"cpp-kernel:1")
    second, client = remote(server, tmp_path)
    assert not second.lacks(b"cpp-kernel:1")
    assert second.lacks(b"cpp-kernel:2")
    client.delete(EPOCH_KEY)
    third, _ = remote(server, tmp_path)
    assert third.lacks(b"cpp-kernel:1")


def test_what_another_process_put_since_is_not_put_again(server: Pilotlight, tmp_path: Path) -> None:
    late, client = remote(server, tmp_path)
    assert late.is_missing(b"cpp-kernel:1")
    other, _ = remote(server, tmp_path)
    assert other.put(b"cpp-kernel:1", b"object", 7700)
    assert late.lacks(b"cpp-kernel:1"), "its note is older"
    assert not late.is_missing(b"cpp-kernel:1")
    assert not late.lacks(b"cpp-kernel:1"), "noted now"
    assert client.get_many([b"cpp-kernel:1"])[0].compile_ms == 7700


def test_prefetched_kernels_cost_no_further_round_trip(server: Pilotlight, tmp_path: Path) -> None:
    writer, _ = remote(server, tmp_path / "a")
    keys = [b"cpp-kernel:%d" % number for number in range(5)]
    for key in keys:
        writer.put(key, key)
    reader, client = remote(server, tmp_path / "b")
    assert reader.prefetch(keys) == 5
    before = client.stats()["round_trips"]
    assert [reader.get(key) for key in keys] == keys
    assert client.stats()["round_trips"] == before


def test_without_a_server_nothing_is_noted_and_nothing_raises(server: Pilotlight, tmp_path: Path) -> None:
    here, _ = remote(server, tmp_path)
    server.kill()
    assert here.get(b"cpp-kernel:1") is None
    assert not here.put(b"cpp-kernel:1", b"object")
    assert not here.lacks(b"cpp-kernel:1")


class FirstGetFails:
    """A client whose first get finds nobody."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._dead = Client(f"redis://127.0.0.1:{free_port()}")
        self._gets = 0

    def get_many(self, keys: Any) -> Any:
        self._gets += 1
        return (self._dead if self._gets == 1 else self._client).get_many(keys)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_an_epoch_that_did_not_come_is_not_replaced(server: Pilotlight, tmp_path: Path) -> None:
    first, client = remote(server, tmp_path)
    assert first.put(b"cpp-kernel:1", b"object")
    epoch = client.get_many([EPOCH_KEY])[0].artifact
    second = Remote(FirstGetFails(client), HOST, str(tmp_path))  # type: ignore[arg-type]
    assert second.get(b"cpp-kernel:1") is None
    assert not second.lacks(b"cpp-kernel:1"), "asked again, it is the one that the note is about"
    assert client.get_many([EPOCH_KEY])[0].artifact == epoch


def test_of_two_epochs_put_at_once_the_later_one_counts_for_both(server: Pilotlight, tmp_path: Path) -> None:
    first, _ = remote(server, tmp_path / "a")
    second, client = remote(server, tmp_path / "b")
    for one in (first, second):
        assert one.get(b"cpp-kernel:1") is None
    original = first.client

    class SlowerThanAnother:
        def put(self, key: bytes, artifact: bytes, **more: Any) -> bool:
            stored: bool = original.put(key, artifact, **more)
            if key == EPOCH_KEY:
                assert second.put(b"cpp-kernel:2", b"object")
            return stored

        def __getattr__(self, name: str) -> Any:
            return getattr(original, name)

    first.client = SlowerThanAnother()  # type: ignore[assignment]
    assert first.put(b"cpp-kernel:1", b"object")
    assert first._epoch == second._epoch == client.get_many([EPOCH_KEY])[0].artifact


def test_kernels_that_nobody_asks_for_do_not_pile_up(
    server: Pilotlight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, _ = remote(server, tmp_path / "a")
    keys = [b"cpp-kernel:%d" % number for number in range(5)]
    for key in keys:
        writer.put(key, b"x" * 100)
    monkeypatch.setattr(cpp_remote, "_FETCHED_BYTES_MAX", 250)
    reader, _ = remote(server, tmp_path / "b")
    reader.prefetch(keys)
    assert list(reader._fetched) == keys[-2:]


def test_a_lock_that_a_thread_held_while_another_forked_is_open_in_the_child() -> None:
    lock = _forks.Lock()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with _forks.Lock():
        child = os.fork()
        if child == 0:
            with lock:
                os._exit(7)
    # A child that waits for the lock would do so for ever.
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(20)
    status = os.waitpid(child, 0)[1]
    signal.alarm(0)
    done.set()
    holder.join()
    assert os.waitstatus_to_exitcode(status) == 7


def test_kernels_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight.torch import toolchain

    monkeypatch.setenv("PILOTLIGHT_KERNELS", "0")
    assert toolchain.toolchain("g++") is None
    monkeypatch.delenv("PILOTLIGHT_KERNELS")
    # torch's own way: what pytest would put back is gone for good.
    with torch._inductor.config.patch(force_disable_caches=True):
        assert toolchain.toolchain("g++") is None


def test_fingerprints_cost_less_than_five_milliseconds() -> None:
    """In a fresh process, torch imported; the least of three, as the machine may be busy."""
    code = (
        "import time, torch; from pilotlight.torch import compiler, fingerprint\n"
        "begin = time.process_time(); fingerprint.host_fingerprint(); compiler.identify('g++')\n"
        "print(time.process_time() - begin)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    env.pop("PILOTLIGHT_URL", None)
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout) for _ in range(3)
    ]
    assert min(seconds) < 0.005
