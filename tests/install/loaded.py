"""Prints which files Salt loads our modules from: ``loaded.py CONFIG NAMES [MODULE_DIR ...]``.

Runs in the virtualenv that is tried. NAMES is JSON: lists of names by kind.
"""

import json
import sys

import salt.config
import salt.loader


def main(config, names, *module_dirs):
    opts = salt.config.minion_config(f"{config}/minion")
    opts["module_dirs"] = list(module_dirs)
    opts["grains"] = salt.loader.grains(opts)
    utils = salt.loader.utils(opts)
    modules = salt.loader.minion_mods(opts, utils=utils)
    master = salt.config.master_config(f"{config}/master")
    master["module_dirs"] = list(module_dirs)
    loaders = {
        "modules": modules,
        "states": salt.loader.states(opts, modules, utils, None),
        "beacons": salt.loader.beacons(opts, modules),
        "runners": salt.loader.runner(master, utils=salt.loader.utils(master)),
        "engines": salt.loader.engines(master, modules, {}, utils),
    }
    found = {kind: files(loaders[kind], wanted) for kind, wanted in json.loads(names).items()}
    print(json.dumps(found))


def files(loader, names):
    """Return the file of each module that offers at least one function."""
    return {
        name: loader.file_mapping[name][0]
        for name in names
        if name in loader.file_mapping and loader._load_module(name)
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
