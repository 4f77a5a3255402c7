# A minion that has the cluster's pillar, but plays no part in it.
{%- from "lvs/map.jinja" import view with context %}

lvs-no-part:
  test.succeed_without_changes:
    - name: lvs
    - comment: {{ (grains.id ~ " plays no part in cluster " ~ view.cluster ~ ".") | json }}
