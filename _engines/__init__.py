"""Salt syncs this folder as it is; setup.cfg installs it as saltext.lvs.engines."""
