# The master's part: who tells people of what is wrong. Apply it to the minion on the master.
{%- set conf_dir = salt["config.get"]("lvs_master_conf_dir", "/etc/salt") %}
{%- set main = conf_dir ~ "/master" %}
{%- set text = salt["file.read"](main) if salt["file.file_exists"](main) else "" %}
{%- if ((text | load_yaml) or {}).get("engines") %}

# Salt adds up what the files of master.d say, but they all take the place of what the main file says.
lvs-alerts-engines-problem:
  test.fail_without_changes:
    # The sentence is the name: with test=True, this state tells nothing else.
    - name: {{ (main ~ " has `engines:` of its own, which " ~ conf_dir ~ "/master.d/saltext-lvs-alerts.conf would replace: "
        ~ "move them into a file of their own in " ~ conf_dir ~ "/master.d, and apply this again.") | json }}
{%- else %}

lvs-alerts-config:
  file.managed:
    - name: {{ conf_dir }}/master.d/saltext-lvs-alerts.conf
    - source: salt://lvs/files/alerts.conf
    - mode: '0644'
    - makedirs: True
{%- endif %}
