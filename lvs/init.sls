# Makes a machine what its pillar says it is to the cluster: `'*': [lvs]` in top.sls is all there is to write.
{%- from "lvs/map.jinja" import view with context %}

include:
{%- if view.problems %}
  - lvs.invalid
{%- else %}
{#- What was once a real server may still have VIPs to give back, and a director files. -#}
{%- set parts = view.roles + (["realserver"] if view.former_interfaces and "realserver" not in view.roles else []) %}
{%- set parts = parts + (["former_director"] if view.was_director else []) %}
{%- for part in (["minion"] if view.roles else []) + (parts or ["stranger"]) %}
  - lvs.{{ part }}
{%- endfor %}
{%- endif %}
