"""How much memory a program needs, how much there is, and how many members fit."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_elbo import attempts, memory, population, scores
from rd_elbo.memory import Need, Room
from rd_elbo.models.family import Architecture


def test_a_compiled_program_tells_what_it_needs():
    def outer(x):
        # The product does not fit into a register: it is there as a whole, or the sort could not be.
        return jnp.sort((x[:, None] * x[None]).reshape(-1))[:3]

    compiled = jax.jit(outer).lower(jax.ShapeDtypeStruct((1000,), jnp.float32)).compile()
    assert 4_000_000 <= memory.of(compiled) <= 17_000_000
    # What is donated is not counted twice.
    add = jax.jit(lambda x: x + 1, donate_argnums=0).lower(jax.ShapeDtypeStruct((1000,), jnp.float32)).compile()
    assert 4000 <= memory.of(add) < 8000


def test_training_needs_parameters_moments_and_data_and_grows_with_the_members():
    model, mesh = Architecture(encoder_width=6, decoder_width=6, latent=3).build((28, 28)), population.make_mesh(1)
    program = population.Program(model, batch_size=16)
    one = population.bytes_of(population.state_shapes(model, (28, 28), "float32").params)
    needs = [memory.of(population.compiled(program, mesh, n, (500, 28, 28), "uint8")) for n in (4, 8)]
    assert needs[0] > 3 * 4 * one + 500 * 784
    assert 4 * 3 * one <= needs[1] - needs[0] < 4 * 3 * one + needs[0]
    evaluating = memory.of(scores.compiled(program, mesh, 8, (500, 28, 28), "uint8", 250))
    alone = memory.of(scores.compiled(population.Program(model, lanes=1), mesh, 8, (500, 28, 28), "uint8", 250))
    assert alone < evaluating / 3


@settings(max_examples=300, deadline=None)
@given(
    count=st.integers(1, 200),
    multiple=st.integers(1, 8),
    fixed=st.integers(0, 1000),
    each=st.integers(1, 100),
    host=st.integers(0, 50),
    room=st.integers(1, 10_000),
    own=st.booleans(),
)
def test_the_largest_parts_that_fit(count, multiple, fixed, each, host, room, own):
    available = Room(room if own else None, room, multiple)

    def need(members):
        return Need(fixed + each * -(-members // multiple), host * members)

    size, needed = memory.largest(count, multiple, need, fixed, available)
    assert needed == need(size)
    assert 1 <= size <= count and (size == count or size % multiple == 0)
    fits = [n for n in range(1, count + 1) if available.taken(need(n)) <= 1]
    if count in fits:
        assert size == count
    elif any(n >= multiple for n in fits):
        assert size in fits or size <= multiple
        # Hardly more parts than there must be: two devices' worth are lost to evenness and to what is fixed.
        best = max(n for n in fits)
        assert math.ceil(count / size) <= math.ceil(count / max(1, best - 2 * multiple)) + 1
    else:
        assert size <= multiple


def test_room_is_the_scarcer_memory():
    shared, own = Room(None, 1000, 2), Room(100, 1000, 2)
    assert shared.taken(Need(100, 300)) == 0.5
    assert own.taken(Need(150, 300)) == 1.5 and own.taken(Need(10, 900)) == 0.9
    assert shared.compare(Need(2**30, 0)) == "2 of 9.3e-07 GiB of memory"
    assert "of each device's memory" in own.compare(Need(1, 1))


def test_room_of_this_machine():
    room = memory.room(jax.local_devices())
    assert room.device is None and room.devices == len(jax.local_devices())
    assert 0 < room.host <= 0.8 * psutil.virtual_memory().total
    assert memory.room(jax.local_devices(), most=4000).host == 4000


def test_devices_with_memory_of_their_own():
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": 200}

    assert memory.room([Device(), Device()]).device == 640


def test_memory_that_is_held_and_not_used_is_there():
    process, blocks = psutil.Process(), [np.ones(2**17) for _ in range(64)]  # 64 MiB
    held, resident = memory._held(), process.memory_info().rss
    del blocks
    # Given back to the system or kept by the C library: either way it may be taken.
    assert (memory._held() - held) + (resident - process.memory_info().rss) > 2**25


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups(tmp_path, version):
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    if version == 2:
        membership.write_text("0::/job/step\n")
        base, limit, used, inactive = root, "memory.max", "memory.current", "inactive_file"
    else:
        membership.write_text("5:cpu:/\n4:memory,x:/job/step\n1:name=systemd:/job\n")
        base, limit, used, inactive = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
    for path, most, now in (("job", "1000", 600), ("job/step", "max", 100)):
        folder = base / path
        folder.mkdir(parents=True)
        (folder / limit).write_text(most + "\n")
        (folder / used).write_text(f"{now}\n")
        (folder / "memory.stat").write_text(f"cache 5\n{inactive} 50\n")
    assert memory._group_rooms(membership, root) == [450]
    assert memory._group_rooms(tmp_path / "none", root) == []
    (base / "job" / used).write_text("2000")
    assert memory._group_rooms(membership, root) == [0]


def test_the_system_tells_whether_it_has_ended_processes():
    counts = pathlib.Path("/proc/vmstat")
    told = attempts.ended_processes()
    if counts.exists() and "oom_kill " in counts.read_text():
        assert told is not None and told["ended"] >= 0 and len(told["boot"]) == 36
    else:
        assert told is None
