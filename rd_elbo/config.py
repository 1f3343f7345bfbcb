"""The skeleton that configurations fill in; see `sweep` for what its sections mean."""

from ml_collections import ConfigDict, config_dict

from rd_elbo import grid

_SCALARS = {"epochs": float, "batch_size": int, "learning_rate": float, "schedule": str}


def blank(name: str) -> ConfigDict:
    """A configuration without blocks, on the embedded digits, in which nothing is overridden.

    Every field a user may want to set from the command line is there: ml_collections refuses flags for fields that are not.
    """
    config = ConfigDict()
    config.name = name
    config.data = ConfigDict(
        {
            "name": "mnist_static",
            "path": config_dict.placeholder(str),
            "manual_dir": config_dict.placeholder(str),
            "data_dir": config_dict.placeholder(str),
            "examples": config_dict.placeholder(int),
            "splits": ("test", "train"),
        }
    )
    config.base = ConfigDict()
    config.blocks = ConfigDict()
    config.only = ()
    # Axes given here replace those of every block; so do the values of `train`.
    config.grid = ConfigDict({field: config_dict.placeholder(tuple) for field in grid.FIELDS})
    config.train = ConfigDict({field: config_dict.placeholder(kind) for field, kind in _SCALARS.items()})
    config.population = ConfigDict(
        {
            "devices": config_dict.placeholder(int),
            "chunk": config_dict.placeholder(int),
            "lanes": config_dict.placeholder(int),
            "max_waste": 1.25,
            "dtype": "float32",
        }
    )
    return config
