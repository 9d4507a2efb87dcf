# Completion of taskctl for bash: source this file, or install it as
# /usr/share/bash-completion/completions/taskctl.
#
# Task ids and revisions are asked of the daemon, through the socket that the command line names;
# without one there are none, and nothing is said about it.

_taskctl_verbs="status submit run list show why wait follow logs cancel retry change checkpoint pause resume concurrency gc schedules revisions drain deploy reload rollback doctor"

_taskctl_options() {
    case $1 in
        submit) echo "--key --if-exists --key-for --at-most --secret --priority --queue --delay --at --expires --timeout --retries --after --if-failed --wait --json" ;;
        run) echo "--key --if-exists --key-for --at-most --secret --priority --queue --delay --at --expires --timeout --retries --after --if-failed --wait --json --on-deploy --cwd --env --umask --nice --stdin" ;;
        list) echo "--state --queue --name --owner --key --revision --since --until --text --columns --limit --json" ;;
        wait) echo "--timeout --json" ;;
        logs) echo "-f --follow --raw" ;;
        status | show | why | follow | doctor) echo "--json" ;;
        schedules) echo "list pause resume run --catch-up --force --json" ;;
        pause) echo "--queue --task --all --for --why --json" ;;
        resume) echo "--queue --task --all --json" ;;
        concurrency) echo "--reset --for --why --json" ;;
        gc) echo "--state --queue --name --older --all --at-most --yes --compact --json" ;;
        revisions) echo "--rejected --json" ;;
        drain) echo "--revision --checkpoint --now --unit --user --json" ;;
        deploy | reload | rollback) echo "--plan --allow-held --json" ;;
        cancel) echo "--state --queue --name --owner --key --revision --since --until --text --all --at-most --yes --json" ;;
        retry) echo "--from-start --from --state --queue --name --owner --key --revision --since --until --text --all --at-most --yes --json" ;;
        change) echo "--to-queue --to-priority --now --delay --at --state --queue --name --owner --key --revision --since --until --text --all --at-most --yes --json" ;;
        checkpoint) ;;
        *) echo "--version $_taskctl_verbs" ;;
    esac
    echo "--socket --help"
}

# The values of the first field of the objects that a reading verb prints, one a line. Bash would
# expand what stands in them, so that a name with anything special in it is left out.
_taskctl_ask() {
    taskctl "${socket[@]}" "$@" --json 2>/dev/null |
        sed -nE 's/^\{"[a-z]+": "([A-Za-z0-9._-]+)".*/\1/p'
}

_taskctl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb= i
    local -a socket=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --socket) socket=(--socket "${COMP_WORDS[++i]}") ;;
            -*) ;;
            *) verb=${verb:-${COMP_WORDS[i]}} ;;
        esac
    done
    COMPREPLY=()
    case $before in
        --socket) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
        --revision) mapfile -t COMPREPLY < <(compgen -W "$(_taskctl_ask revisions)" -- "$word") && return ;;
        --cwd) mapfile -t COMPREPLY < <(compgen -d -- "$word") && return ;;
        --on-deploy) mapfile -t COMPREPLY < <(compgen -W "finish checkpoint" -- "$word") && return ;;
        --state) mapfile -t COMPREPLY < <(compgen -W "queued scheduled running held succeeded failed cancelled" -- "$word") && return ;;
        --key | --secret | --priority | --delay | --at | --expires | --retries | --queue | --name | --limit | --timeout) return ;;
    esac
    if [[ $word == -* || -z $verb ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_taskctl_options "$verb")" -- "$word")
        return
    fi
    case $verb in
        show | wait | follow | logs | cancel | retry)
            mapfile -t COMPREPLY < <(compgen -W "$(_taskctl_ask list)" -- "$word") ;;
        deploy) mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
        run) mapfile -t COMPREPLY < <(compgen -c -f -- "$word") ;;
    esac
}

complete -F _taskctl taskctl
