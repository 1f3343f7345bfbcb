"""Members on the devices of one process or of many: placing, spreading, collecting, agreeing.

One code path serves both. Arrays with members first are sharded over the mesh's only axis, so no
device ever waits for another. Processes exchange small values through JAX's coordination service,
on the hosts: a device that is busy delays nobody.
"""

import functools
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax._src import distributed  # the only way to the coordination service
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from rd_elbo.errors import BadInput, Failed

MEMBER_AXIS = "member"
# The most members that a CPU advances side by side unless a number is given: a few states fit into
# its cache, and hundreds do not.
VMAP_SIZE_ON_CPU = 16
# Axes of the kernel of a convolution of images.
_KERNEL_AXES = 4
# Only process 0 caches compiled programs, so it may be that much ahead.
TIMEOUT = 600.0
_ANNOUNCED = 20.0
_MIB = 2**20

T = TypeVar("T")
Report = Callable[[str], None]


def make_mesh(devices: int | None = None, members: int | None = None) -> Mesh:
    """A mesh of the devices of all processes.

    Args:
      devices: Devices of each process; None means all.
      members: Members to train; one process uses no more devices than that. Several processes use
        all, and members are padded.

    Raises:
      BadInput: If a process has fewer devices.
    """
    count = jax.process_count()
    by_process: list[list[Any]] = [[] for _ in range(count)]
    for device in jax.devices():
        by_process[device.process_index].append(device)
    fewest = min(map(len, by_process))
    if devices is not None and devices > fewest:
        raise BadInput(f"devices={devices!r}: expected at most {fewest}, the devices of a process.")
    most = min(devices or fewest, members or fewest) if count == 1 else devices or fewest
    chosen = [device for own in by_process for device in own[:most]]
    return Mesh(np.asarray(chosen), (MEMBER_AXIS,))


def by_member(mesh: Mesh) -> NamedSharding:
    """The leading axis spread over the mesh."""
    return NamedSharding(mesh, P(MEMBER_AXIS))


def everywhere(mesh: Mesh) -> NamedSharding:
    """A whole copy on each device of the mesh."""
    return NamedSharding(mesh, P())


def fill(members: Sequence[T], multiple: int) -> list[T]:
    """The members, the last one repeated until their number is a multiple."""
    return [*members, *[members[-1]] * (-len(members) % multiple)]


def fill_rows(array: np.ndarray, multiple: int) -> np.ndarray:
    """`fill` for an array with members first."""
    return np.concatenate([array, np.repeat(array[-1:], -len(array) % multiple, axis=0)])


def local_rows(mesh: Mesh, members: int) -> dict[Any, slice]:
    """The rows of each device of this process, of arrays with `members` rows."""
    indices = by_member(mesh).addressable_devices_indices_map((members,))
    return {device: slice(*index[0].indices(members)) for device, index in indices.items() if index}


def put_members(tree: PyTree, mesh: Mesh) -> PyTree:
    """Spread the leading axis of NumPy arrays over the mesh; it is filled to a multiple of it."""
    return jax.tree.map(lambda x: _put(fill_rows(np.asarray(x), mesh.size), by_member(mesh)), tree)


def put_rows(make: Callable[[slice], PyTree], members: int, mesh: Mesh) -> PyTree:
    """Make arrays with `members` rows, each device's rows apart.

    No process holds the rows of all.

    Args:
      make: Function from rows to a tree of NumPy arrays of these rows.
      members: Rows in all, a multiple of the mesh's size.
      mesh: Devices that the rows are spread over.
    """
    parts = []
    for device, rows in local_rows(mesh, members).items():
        parts.append(jax.tree.map(lambda x, device=device: jax.device_put(x, device), make(rows)))

    def join(*shards: Array) -> Array:
        shape = (members, *shards[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, by_member(mesh), list(shards))

    return jax.tree.map(join, *parts)


def put_everywhere(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put a whole copy of NumPy arrays on each device; arrays already placed so are left alone.

    Raises:
      BadInput: If another process has other data.
    """
    where = everywhere(mesh)

    def put(x: Any) -> Array:
        if isinstance(x, jax.Array) and x.sharding.is_equivalent_to(where, x.ndim):
            return x
        x = np.asarray(x)
        if jax.process_count() > 1 and x.nbytes:
            digest = hashlib.sha256(x.tobytes()).digest()
            differing = [i for i, other in enumerate(agree("data", digest)) if other != digest]
            if differing:
                raise BadInput(
                    f"data: expected the same in all processes, got others in process "
                    f"{differing[0]}."
                )
        return _put(x, where)

    return jax.tree.map(put, tree)


def _put(x: np.ndarray, sharding: NamedSharding) -> Array:
    # Not jax.device_put: onto several processes it gathers its input to compare it.
    x = x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def gather(tree: PyTree, mesh: Mesh) -> PyTree:
    """Start collecting arrays with members first on all processes; nothing waits.

    All processes must call it, in one order. `np.asarray` of the result waits.
    """
    if jax.process_count() == 1:
        return tree
    return jax.jit(lambda x: x, out_shardings=everywhere(mesh))(tree)


def fetch(tree: PyTree, members: int) -> PyTree:
    """NumPy arrays of the first `members` rows, on every process."""
    if jax.process_count() > 1:
        tree = multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(lambda x: np.asarray(x)[:members], tree)


def spread(
    members: Callable[..., PyTree], mesh: Mesh, vmap_size: int | None, *, in_place: bool = False
) -> Callable[..., PyTree]:
    """Spread a function of members side by side over devices, a few members after the others.

    Args:
      members: Function of `(own, of_device, *shared)`: trees with members first, trees with one
        entry per device, and arrays that all share.
      mesh: Members, and what is one per device, are spread over its devices; the shared arrays are
        on each of them.
      vmap_size: The most members that a device advances side by side; None means
        `default_vmap_size`.
      in_place: Whether `own` is `(state, *rest)` and the function returns `(state, results)`. The
        new states then take the place of the old ones, part by part, where memory is donated.

    Returns:
      The function of all members, with devices first in place of what is one per device.
    """

    def on_each_device(own: PyTree, of_device: PyTree, *shared: Array) -> PyTree:
        count = len(jax.tree.leaves(own)[0])
        most = vmap_size or default_vmap_size(own, count, mesh.devices.flat[0].platform)
        if most >= count:
            return members(own, of_device, *shared)
        # Equal parts: a smaller last one is a second program to compile.
        size = -(-count // -(-count // most))
        whole = count // size * size

        def part(state: PyTree, rest: PyTree, start: Any, length: int) -> tuple[PyTree, PyTree]:
            """The states after a part of the members had its turn, and what it returned."""
            if not in_place:
                return state, members(rest, of_device, *shared)
            old = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, length), state)
            new, results = members((old, *rest), of_device, *shared)
            put = functools.partial(lax.dynamic_update_slice_in_dim, start_index=start, axis=0)
            return jax.tree.map(put, state, new), results

        def in_parts(x: Array) -> Array:
            return x[:whole].reshape(whole // size, size, *x.shape[1:])

        state, rest = (own[0], own[1:]) if in_place else ((), own)
        turns = jnp.arange(0, whole, size), jax.tree.map(in_parts, rest)
        state, done = lax.scan(lambda state, at: part(state, at[1], at[0], size), state, turns)
        done = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), done)
        if whole < count:
            last = jax.tree.map(lambda x: x[whole:], rest)
            state, results = part(state, last, whole, count - whole)
            done = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), done, results)
        return (state, done) if in_place else done

    def on_all(own: PyTree, of_device: PyTree, *shared: Array) -> PyTree:
        return jax.shard_map(
            on_each_device,
            mesh=mesh,
            in_specs=(P(MEMBER_AXIS), P(MEMBER_AXIS), *[P()] * len(shared)),
            out_specs=P(MEMBER_AXIS),
            # The loop over members inside `vmap_conv.conv` mixes per-member and shared arrays.
            check_vma=False,
        )(own, of_device, *shared)

    return on_all


def default_vmap_size(own: PyTree, count: int, platform: str) -> int:
    """Members that a device advances side by side unless a number is given.

    | platform | with a convolution | without |
    |---|---|---|
    | CPU | 1 | at most 16 |
    | others | all | all |

    XLA on CPU loops over the kernels of members, and a loop around whole steps costs less than one
    in each layer. Small dense layers share their overheads.

    Args:
      own: Tree of arrays with members first; a kernel of a convolution has four axes more.
      count: Number of members on a device.
      platform: Platform of the device, such as "cpu".
    """
    if platform != "cpu":
        return count
    convolutional = any(x.ndim > _KERNEL_AXES for x in jax.tree.leaves(own))
    return 1 if convolutional else min(count, VMAP_SIZE_ON_CPU)


def side_by_side(member: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A function of members side by side, for `spread`, from one member's."""

    def members(own: PyTree, *rest: Any) -> PyTree:
        return jax.vmap(lambda own: member(own, *rest))(own)

    return members


_asked: Counter[str] = Counter()


def agree(
    name: str, value: bytes = b"", timeout: float = TIMEOUT, report: Report | None = None
) -> list[bytes]:
    """Wait for all processes and exchange a small value.

    Args:
      name: Subject; all processes ask about the same subjects in one order.
      value: Value of this process, at most a mebibyte.
      timeout: Seconds to wait for the others.
      report: Callback with a sentence, when others are late.

    Returns:
      The values of all processes, in their order.

    Raises:
      Failed: If processes do not come in time; it names them.
    """
    if jax.process_count() == 1:
        return [value]
    if len(value) > _MIB:
        raise ValueError(f"value of {len(value)} bytes: expected at most {_MIB}")
    client: Any = distributed.global_state.client
    own, processes = jax.process_index(), jax.process_count()
    _asked[name] += 1
    folder = f"rd_elbo/{name}/{_asked[name]}"

    def here() -> dict[int, bytes]:
        pairs = client.key_value_dir_get_bytes(folder)
        return {int(key.rpartition("/")[2]): found for key, found in pairs}

    def missing() -> str:
        absent = sorted({*range(processes)} - {*here()})
        return ", ".join(map(str, absent)) or "none"

    client.key_value_set_bytes(f"{folder}/{own}", value)
    late = threading.Timer(
        _ANNOUNCED,
        lambda: report and report(f"waiting for processes {missing()} of {processes} ({name})"),
    )
    late.daemon = True
    late.start()
    try:
        client.wait_at_barrier(folder, int(1000 * timeout))
    except jax.errors.JaxRuntimeError as error:
        raise Failed(
            f"processes {missing()} of {processes} did not come within {timeout:g} s ({name})"
        ) from error
    finally:
        late.cancel()
    values = here()
    # All have read what was said two questions ago.
    if _asked[name] > 2:
        client.key_value_delete(f"rd_elbo/{name}/{_asked[name] - 2}/{own}")
    return [values[i] for i in range(processes)]
