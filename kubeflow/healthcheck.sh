#!/bin/sh
# Whether the container does its work. A server, or the trigger, is asked; anything else is a job,
# which is healthy as long as it runs. With an argument: the command line to look at, for tests.
set -eu
words="$(tr '\0' '\n' < "${1:-/proc/1/cmdline}")"

# The value of an option, given as --name=value or --name value; else the default.
option() {
    value="$(printf '%s\n' "$words" | sed -n -e "s/^$1=//p" -e "/^$1\$/{n;p;}" | tail -n 1)"
    printf '%s' "${value:-$2}"
}

if printf '%s\n' "$words" | grep -qx serve; then
    port="$(option --rest-port 8501)"
elif printf '%s\n' "$words" | grep -qx pipeline.trigger; then
    port="$(option --port 8080)"
else
    exit 0
fi
exec python -c 'import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=4)' "http://127.0.0.1:$port/healthz" 2> /dev/null
