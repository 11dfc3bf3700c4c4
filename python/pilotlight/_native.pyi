"""What the Rust side offers to the Python side. Nothing else crosses the boundary.

No method but the constructor raises for a reason that lies outside the caller: a failed get is a miss, a failed put is a
dropped put, both counted by reason. All of them release the GIL while they wait. No thread is started, but to look up
a host's name and to renew leases while there are any, and sockets are made anew after a fork.
"""

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Final, Literal, final

__version__: Final[str]

@final
class Entry:
    """An artifact whose digest was checked, and its signature if that was asked for, and what is known about it."""

    @property
    def artifact(self) -> bytes:
        """The bytes. Of an entry in PyTorch's JSON shape: what `data` stands for, the base64 undone."""
    @property
    def torch_json(self) -> bool:
        """Whether stock clients see it as `{"data": base64, "time_taken_ms": n}`."""
    @property
    def compile_ms(self) -> int: ...
    @property
    def created_ms(self) -> int: ...
    @property
    def producer(self) -> str | None: ...
    @property
    def fingerprint(self) -> bytes | None:
        """32 bytes, or nothing: then it fits everywhere (a stock client put it, or it does not depend on the host)."""
    @property
    def variant(self) -> int | None: ...
    @property
    def components(self) -> list[tuple[int, int]]: ...

@final
class Client:
    """A remote cache: a Pilotlight, a Redis, or a directory. Makes no connection before the first call."""

    def __init__(
        self,
        url: str,
        *,
        connect_timeout: float = 1.0,
        stall_timeout: float = 1.0,
        total_timeout: float = 10.0,
        trouble_budget: float = 2.0,
        max_bytes: int = 0,
        client_cert: str | PathLike[str] | None = None,
        client_key: str | PathLike[str] | None = None,
        server_ca: str | PathLike[str] | None = None,
        namespace: str | None = None,
        signing_key: str | None = None,
        verify: str | None = None,
        trust: str | None = None,
    ) -> None:
        """`url` is `pilotlight://`, `redis://`, `unix://`, `file://`, and with TLS `pilotlights://` or `rediss://`. Times in
        seconds.

        `stall_timeout` bounds a wait in which no byte moves or fewer than 256 KiB a second do, `total_timeout` one
        operation, `trouble_budget` what all failures of this process may cost together: when it is spent the client stays
        quiet for good. To them counts what an answer takes beyond half of `stall_timeout` and the time of its bytes at
        256 KiB a second. `max_bytes` bounds a `file://` directory; 0 is 10 GiB.

        For TLS: `client_cert` and `client_key` are PEM files to prove oneself with, `server_ca` one of authorities to check the
        server with instead of the system's. The first connection reads them; what is wrong with them fails the operation.

        What is put is signed with the key in the file `signing_key`. `verify` says what becomes of an entry that none of the
        signers in the file `trust` signed: it is used (`off`, the default), used and counted and said (`warn`), or as absent
        (`require`). `namespace` is what entries are signed for, else that of the URL's database. What is wrong with one of
        these is no exception but a `notice`, and the safe side is taken: unsigned puts, nobody trusted, `require`.

        Raises `ValueError` for a URL that cannot be understood, with a hint and without its password.
        """
    @property
    def url(self) -> str:
        """Without secrets."""
    def ping(self) -> float | None:
        """Seconds that a round trip takes, connection included; `None` if it failed."""
    def get_many(self, keys: Sequence[bytes]) -> list[Entry | None]:
        """One answer a key, in one round trip, whatever fingerprint they carry."""
    def has(self, keys: Sequence[bytes]) -> list[bool] | None:
        """Which of the keys something stands under, without fetching it, in one round trip; `None` if that failed."""
    def candidates(self, key: bytes, fingerprint: bytes | None) -> Iterator[Entry]:
        """The variants under `key` whose fingerprint is `fingerprint` or absent, newest first.

        Lazy: the first comes in the same round trip as the list of the others, those in a second one, and only when
        asked for. Variants that were passed over are counted under `misfit`.
        """
    def put(
        self,
        key: bytes,
        artifact: bytes,
        *,
        torch_json: bool = False,
        compile_ms: int = 0,
        producer: str | None = None,
        fingerprint: bytes | None = None,
        components: Sequence[tuple[int, int]] = (),
    ) -> bool:
        """Stores one entry in place of whatever stands under `key`. Whether it was stored."""
    def put_variant(
        self,
        key: bytes,
        variant: int,
        artifact: bytes,
        *,
        torch_json: bool = False,
        compile_ms: int = 0,
        producer: str | None = None,
        fingerprint: bytes | None = None,
        components: Sequence[tuple[int, int]] = (),
    ) -> bool:
        """Stores one variant (64 bits, chosen by the caller) as the newest, and keeps up to 15 others under `key`."""
    def get_raw(self, key: bytes) -> bytes | None:
        """The value as a stock client would get it: PyTorch's JSON rebuilt. For the drop-in's Redis-like backend."""
    def put_raw(self, key: bytes, value: bytes, *, compile_ms: int = 0) -> bool:
        """Stores a value as a stock client would."""
    def group(self, leader: bytes, keys: Sequence[bytes]) -> int:
        """Has what stands under `leader` and `keys` evicted together or not at all; of how many entries that is true now.

        0 where there are no groups: a plain Redis, a directory, a server of an earlier version; found out once, and no failure.
        Of variants, the newest is meant."""
    def lease(self, key: bytes, limit: float) -> tuple[Literal["lead", "look", "alone", "timeout"], Lease | None]:
        """Who compiles `key`, which was looked for and is not there. Waits `limit` seconds at most for another that does.

        `lead`: the caller, with the lease; others wait for what it puts. `look`: it is there now. `alone`: the caller, and
        nobody waits: there are no leases here, nobody answers, or nothing will come. `timeout`: the caller, although another
        does. Raises what a signal's handler raises meanwhile, and nothing else.
        """
    def delete(self, key: bytes) -> bool: ...
    def quarantine(self, key: bytes) -> None:
        """The caller could not use an entry although its digest was right: counts it and deletes it."""
    def quarantine_variant(self, key: bytes, entry: Entry) -> None:
        """As `quarantine`, of that entry among the variants that `candidates` gave for `key`, and of no other."""
    def notice(self) -> str | None:
        """A sentence for the user, once: at the first failure, at the recovery, when the budget is spent."""
    def stats(self) -> dict[str, int]:
        """Since the start of this process. Keys: `gets hits misses puts dropped misfit corrupt unsigned unknown_signer
        bad_signature revoked expired out_of_scope quarantined unavailable
        timeout denied full too_large bytes_read bytes_written round_trips connections led followed lease_timeouts waited_ms
        trouble_us`."""
    def thread_stats(self) -> dict[str, int]:
        """The counters of failures and misfits in `stats`, of the calling thread's operations, whichever client did them.

        Its difference over an operation tells why that went without result."""
    def close(self) -> None:
        """Closes what is open. The client may be used again."""

@final
class Lease:
    """The compile of one key, for others too: renewed by itself, given up when it is collected."""

    def put(self) -> None:
        """What was put has ended it. Costs nothing."""
    def release(self) -> None:
        """Gives it up: another compiles."""
