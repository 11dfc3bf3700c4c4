"""Stock torch.compile: what one process put, another gets, also after a restart of the server."""

from __future__ import annotations

from demo.processes import compile_in_fresh_process
from tests.clients.conftest import Launch

MODEL = "mlp-training"


def test_second_process_hits_fx_and_aot_remotely_after_a_restart(launch: Launch) -> None:
    server = launch()
    cold = compile_in_fresh_process(MODEL, server.redis_url)
    assert (cold.fx_hits, cold.aot_hits) == (0, 0)
    assert (cold.fx_lookups, cold.aot_lookups) == (2, 1), "a forward and a backward graph, and one AOTAutograd entry"

    assert server.stop() == 0
    server.start()

    warm = compile_in_fresh_process(MODEL, server.redis_url)
    assert (warm.fx_hits, warm.fx_lookups) == (2, 2)
    assert (warm.aot_hits, warm.aot_lookups) == (1, 1)
    assert cold.exceptions == warm.exceptions == 0
    assert warm.equals_eager
    assert warm.digest == cold.digest
