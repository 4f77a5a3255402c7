# Makes a machine what its pillar says it is to the cluster: `'*': [lvs]` in top.sls is all there is to write.
{%- from "lvs/map.jinja" import view with context %}

include:
{%- if view.problems %}
  - lvs.invalid
{%- elif view.roles %}
  - lvs.minion
{%- for role in view.roles %}
  - lvs.{{ role }}
{%- endfor %}
{%- if view.had_vips and "realserver" not in view.roles %}
  - lvs.realserver
{%- endif %}
{%- elif view.had_vips %}
  - lvs.realserver
{%- else %}
  - lvs.stranger
{%- endif %}
