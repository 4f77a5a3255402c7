# A virtualization host that carries directors or real servers: its kernel settings.
{%- from "lvs/map.jinja" import view, names with context %}

{%- if view.problems %}

include:
  - lvs.invalid

{%- else %}
{%- for line in view.sysctls.hypervisor %}

lvs-hypervisor-{{ line.name }}:
  sysctl.present:
    - name: {{ line.name }}
    - value: {{ line.value }}
    - config: {{ names.sysctl_dir }}/60-saltext-lvs-hypervisor.conf
{%- endfor %}
{%- endif %}
