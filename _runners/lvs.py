"""
What the master can say of Linux Virtual Server clusters.
"""

import salt.pillar
import salt.utils.minions
import saltext.lvs
from salt.exceptions import SaltInvocationError

saltext.lvs.refresh(__file__)

from saltext.lvs import model  # noqa: E402 -- the library as it is now on disk

__virtualname__ = "lvs"


def __virtual__():
    return __virtualname__


def validate(tgt="*", tgt_type="glob", saltenv=None, pillarenv=None):
    """
    Check the pillar of minions against the cluster's model, as the master compiles it; no minion is
    asked.

    Returns for each minion what :py:func:`lvs.validate <saltext.lvs.modules.lvs.validate>` does; a
    minion whose pillar has no ``lvs`` is left out unless it was named. The exit status is 1 if any
    pillar is wrong.

    tgt, tgt_type
        The minions, as on Salt's command line; of a minion that the master does not know, only its
        id matters.

    saltenv, pillarenv
        Salt's environments; by default the master's.

    CLI Example:

    .. code-block:: bash

        salt-run lvs.validate
        salt-run lvs.validate lb1
    """
    judged = {}
    for minion_id in _minions(tgt, tgt_type):
        pillar = _pillar(minion_id, saltenv, pillarenv)
        if pillar.get("_errors"):
            judged[minion_id] = {
                "valid": False,
                "problems": [str(error) for error in pillar["_errors"]],
                "warnings": [],
            }
        elif pillar.get("lvs") or minion_id == tgt:
            judged[minion_id] = model.judge(pillar, minion_id)
    if not all(answer["valid"] for answer in judged.values()):
        __context__["retcode"] = 1
    return judged


def _minions(tgt, tgt_type):
    if not isinstance(tgt, str):
        raise SaltInvocationError("tgt should be a minion id or a target expression")
    checked = salt.utils.minions.CkMinions(__opts__).check_minions(tgt, tgt_type)
    # Before a minion's key is accepted its pillar can be tried under its future id.
    return sorted(checked["minions"]) or ([tgt] if tgt_type == "glob" and "*" not in tgt else [])


def _pillar(minion_id, saltenv, pillarenv):
    _, grains, _ = salt.utils.minions.get_minion_data(minion_id, __opts__)
    grains = grains or {"id": minion_id}
    pillar = salt.pillar.Pillar(__opts__, grains, minion_id, saltenv, pillarenv=pillarenv)
    return pillar.compile_pillar()
