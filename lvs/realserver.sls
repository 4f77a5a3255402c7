# A real server: quiet on ARP first, then the VIP.
{%- from "lvs/map.jinja" import view, names with context %}
{%- from "lvs/modules.jinja" import kernel_modules %}

{%- if view.problems %}

include:
  - lvs.invalid

{%- else %}

include:
  - lvs.minion

{%- if view.vips %}

{%- for line in view.sysctls.realserver %}

{{ line.name }}:
  sysctl.present:
    - value: {{ line.value }}
    - config: {{ names.sysctl_dir }}/60-saltext-lvs-realserver.conf
    - require_in:
      - dummy: lvs-vip-interface
{%- endfor %}

{{ kernel_modules(view, "realserver") }}

lvs-vip-interface:
  dummy.present:
    - name: {{ view.vip_interface }}
    - require:
      - id: lvs-realserver-modules
      - id: lvs-pyroute2

{%- elif view.had_vips %}

# The last virtual server that this machine served is gone, or needs no VIP here any more.
lvs-vip-interface:
  dummy.absent:
    - name: {{ view.vip_interface }}
    - require:
      - id: lvs-pyroute2

{%- endif %}
{%- endif %}
