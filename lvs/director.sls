# A director: the IPVS table first, then keepalived, which brings the VIPs that need it.
{%- from "lvs/map.jinja" import view, names with context %}
{%- from "lvs/modules.jinja" import kernel_modules %}

{%- if view.problems %}

include:
  - lvs.invalid

{%- else %}

lvs-director-packages:
  pkg.installed:
    - pkgs: {{ names.packages | json }}

{{ kernel_modules(view, "director") }}

lvs-director-sysctls:
  ipvs.sysctls:
    - settings: {{ view.ipvs.sysctls | json }}
    - config: {{ names.sysctl_dir }}/60-saltext-lvs-director.conf
    - require:
      - id: lvs-director-modules
{%- if view.ipvs.timeouts %}

lvs-director-timeouts:
  ipvs.timeouts:
    {%- for name, seconds in view.ipvs.timeouts.items() %}
    - {{ name }}: {{ seconds }}
    {%- endfor %}
    - require:
      - id: lvs-director-modules
{%- endif %}

lvs-ipvs-table:
  ipvs.managed:
    - require:
      - id: lvs-director-modules
      - ipvs: lvs-director-sysctls

# A rebooted director has its table before keepalived takes the VIPs.
lvs-ipvs-at-boot:
  ipvs.at_boot:
    - require:
      - pkg: lvs-director-packages
      - ipvs: lvs-ipvs-table

# Before keepalived puts one there.
lvs-director-vips-kept:
  keepalived.vips_kept

lvs-keepalived-config:
  keepalived.config:
    - name: {{ names.config }}
    - require:
      - pkg: lvs-director-packages
      - ipvs: lvs-ipvs-table

# Never restarted for a change: that would take the VIPs down and lose what keepalived knows.
lvs-keepalived-service:
  service.running:
    - name: {{ names.service }}
    - enable: True
    - reload: True
    # For ps, where the init script knows no "status": the program, not whatever names its files.
    - sig: {{ names.program }}
    - watch:
      - keepalived: lvs-keepalived-config

{%- endif %}
