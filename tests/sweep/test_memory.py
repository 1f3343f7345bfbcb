"""How much memory a program needs, how much there is, and what follows."""

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest

from rd_elbo import host
from rd_elbo.models.family import Architecture
from rd_elbo.sweep import config, memory, run
from rd_elbo.training import fit as training
from rd_elbo.training.sharding import make_mesh
from rd_elbo.training.state import TrainSpec, bytes_of, parameter_shapes


def test_a_compiled_program_tells_what_it_needs():
    def outer(x):
        # The product does not fit into a register: it is there as a whole before the sort.
        return jnp.sort((x[:, None] * x[None]).reshape(-1))[:3]

    shape = jax.ShapeDtypeStruct((1000,), jnp.float32)
    assert 4_000_000 <= memory.needed(jax.jit(outer).lower(shape).compile()) <= 17_000_000
    # What is donated is not counted twice.
    add = jax.jit(lambda x: x + 1, donate_argnums=0).lower(shape).compile()
    assert 4000 <= memory.needed(add) < 8000


def test_training_needs_parameters_moments_and_data_and_grows_with_the_members():
    model, mesh = (
        Architecture(encoder_width=6, decoder_width=6, latent=3).build((28, 28)),
        make_mesh(1),
    )
    spec, one = TrainSpec(model, batch_size=16), bytes_of(parameter_shapes(model, (28, 28)))
    needs = [
        memory.needed(training.compile_for(spec, mesh, [0] * n, (500, 28, 28), "uint8"))
        for n in (4, 8)
    ]
    assert needs[0] > 3 * 4 * one + 500 * 784
    assert 4 * 3 * one <= needs[1] - needs[0] < 4 * 3 * one + needs[0]


def test_free_memory_of_this_machine():
    one, two = memory.free(make_mesh(1)), memory.free(make_mesh(2))
    assert 0 < one <= memory.SHARE * psutil.virtual_memory().total
    assert two == pytest.approx(one / 2, rel=0.2)
    assert memory.free(make_mesh(1), tasks=4) == pytest.approx(one / 4, rel=0.2)


def test_devices_with_memory_of_their_own():
    class Device:
        process_index = 0

        def __init__(self, used):
            self.used = used

        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": self.used}

    class Mesh:
        devices = np.array([Device(0), Device(200)])

    assert memory.free(Mesh()) == 640


def test_memory_that_is_held_and_not_used_is_there():
    process, blocks = psutil.Process(), [np.ones(2**17) for _ in range(64)]  # 64 MiB
    held, resident = host.held_memory(), process.memory_info().rss
    del blocks
    # Given back to the system or kept by the C library: either way it may be taken.
    assert (host.held_memory() - held) + (resident - process.memory_info().rss) > 2**25


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups(tmp_path, version):
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    if version == 2:
        membership.write_text("0::/job/step\n")
        base, names = root, ("memory.max", "memory.current", "inactive_file")
    else:
        membership.write_text("5:cpu:/\n4:memory:/job/step\n1:name=systemd:/job\n")
        base = root / "memory"
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit, used, inactive = names
    for path, most, now in (("job", "1000", 600), ("job/step", "max", 100)):
        group = base / path
        group.mkdir(parents=True)
        (group / limit).write_text(most + "\n")
        (group / used).write_text(f"{now}\n")
        (group / "memory.stat").write_text(f"cache 5\n{inactive} 50\n")
    groups = host.control_groups("memory", membership, root)
    assert min(map(memory._room, groups)) == 450
    assert host.control_groups("memory", tmp_path / "none", root) == []


@pytest.mark.parametrize(("counts", "tasks"), [("4(x2)", 4), ("2,1", 2), ("8", 8), (None, 1)])
def test_tasks_of_a_slurm_step_on_a_host(counts, tasks):
    assert memory.tasks_on_host({"SLURM_STEP_TASKS_PER_NODE": counts} if counts else {}) == tasks


def test_what_running_out_of_memory_is():
    assert memory.ran_out(MemoryError()) and not memory.ran_out(ValueError("out of memory"))
    assert memory.ran_out(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"))
    assert not memory.ran_out(jax.errors.JaxRuntimeError("INTERNAL: it does not compile"))


def test_a_chunk_that_announces_too_much_is_halved_before_it_runs(tmp_path, monkeypatch):
    given = {
        "name": "tiny",
        "data": {"name": "mnist_static", "examples": 64},
        "base": {"encoder_width": 6, "latent": 3, "decoder_width": 6, "batch_size": 16},
        "blocks": {"mlp": {"beta": (0.5, 1.0, 2.0)}},
    }
    plan, said, sizes, real = config.load(given), [], [], training.fit
    (chunk,) = plan.chunks()

    def fit(spec, models, *args, **kwargs):
        sizes.append(len(models))
        return real(spec, models, *args, **kwargs)

    monkeypatch.setattr(training, "fit", fit)
    # A single member is tried whatever it takes.
    monkeypatch.setattr(memory, "free", lambda *_: 1)
    assert run.memory_of(plan, chunk) > 1
    outcome = run.run(plan, tmp_path / "run", report=said.append)
    assert sizes == [1, 1, 1] and len(outcome.points) == 6 and not outcome.failed
    assert [one.partition(" ")[0] for one in said] == ["3", "2"]
    assert all("GiB that are free" in one for one in said)
