#!/bin/sh
# A program that tells what it does in the same form as witness.py: command.sh TAG TURNS SECONDS
tell() {
    read -r up _ < /proc/uptime
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "${up%.*}${up#*.}0000000" "$TASKD_TASK_ID" \
        "$TASKD_ATTEMPT" $$ "$TASKD_REVISION" "$1" "$2" "$3" >> "$STORM_EFFECTS"
}
exec 9>> "$STORM_CLAIMS/$TASKD_TASK_ID"
flock -n 9
claimed=$?
tell attempt-begin "$1"
[ "$claimed" -eq 0 ] || tell overlap "$1"
turn=0
while [ "$turn" -lt "$2" ]; do
    tell turn "$turn"
    sleep "$3"
    turn=$((turn + 1))
done
tell attempt-end returned
