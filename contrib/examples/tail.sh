#!/bin/sh
# Prints topics of pricefeedd with curl alone: over Server-Sent Events, line by line, until stopped.
#
#   ./tail.sh [-n LIMIT] [-r] URL TOPIC...       follow; -r prints the raw JSON even if jq is there
#   ./tail.sh -l [-r] URL TOPIC...               the latest message of each topic, once
#
#   ./tail.sh -n 5 http://127.0.0.1:8765 'trade:*:*' quote:binance:BTC-USDT
#
# A key is taken from PRICEFEEDD_API_KEY. Data goes to stdout and everything else to stderr.
# Exit codes: 0, 1 the daemon refused, 2 usage.
#
# When the connection ends it comes back, but nothing brings what was missed meanwhile: this way of reading has no
# `since`. The numbers (seq) show it. Where it matters, use a client of the WebSocket.
set -eu

usage() {
    sed -n 's/^#   //p' "$0" >&2
    exit 2
}

say() { printf '%s\n' "$*" >&2; }

limit=0 raw='' latest=''
while getopts 'n:rl' option; do
    case $option in
        n) limit=$OPTARG ;;
        r) raw=yes ;;
        l) latest=yes ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 2 ] || usage
case $limit in *[!0-9]* | '') usage ;; esac
base=${1%/}
shift

# Turn the topics into arguments of curl, which writes what URLs cannot hold in their own way.
for topic; do
    set -- "$@" --data-urlencode "topics=$topic"
    shift
done

# Make lines for people where there is jq, and leave the JSON as it is where not.
pretty() {
    if [ -z "$raw" ] && command -v jq >/dev/null; then
        jq --unbuffered -r '"\(.topic) #\(.seq) \(.type) " + ([.data | to_entries[] | select(.value != null)
            | "\(.key)=\(.value | if type == "array" then "[\(length) levels]" else . end)"] | join(" "))'
    else
        cat
    fi
}

folder=$(mktemp -d)
reader=''
# shellcheck disable=SC2317  # traps call it
cleanup() {
    trap - EXIT
    [ -z "$reader" ] || kill "$reader" 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'cleanup; exit 130' INT
trap 'cleanup; exit 143' TERM HUP
trap 'cleanup; exit 0' PIPE # `| head` had enough

# The key goes into a file that curl reads, because arguments can be read by everybody on the machine.
[ -z "${PRICEFEEDD_API_KEY:-}" ] || printf 'header = "X-API-Key: %s"\n' "$PRICEFEEDD_API_KEY" >"$folder/key"
: >>"$folder/key"

# Becomes curl, so that the number of its process is that of whoever calls it. It gives up on a connection that is silent
# for a minute: the daemon says something every 15 s ([web] heartbeat_s).
get() {
    path=$1
    shift
    exec curl --config "$folder/key" --silent --show-error --no-buffer --get --globoff --connect-timeout 10 \
        --speed-limit 1 --speed-time 60 --write-out '\nstatus: %{http_code}\n' "$@" "$base$path"
}

if [ -n "$latest" ]; then
    (get /api/v1/latest "$@") >"$folder/answer" || true
    status=$(sed -n 's/^status: //p' "$folder/answer")
    body=$(sed '/^status: /d' "$folder/answer")
    if [ "$status" != 200 ]; then
        [ -z "$body" ] || say "$body"
        exit 1
    fi
    if [ -z "$raw" ] && command -v jq >/dev/null; then
        printf '%s\n' "$body" | jq -c '.results[] | select(.ok) | .messages[]' | pretty
        printf '%s\n' "$body" | jq -r '.results[] | select(.ok | not) | "\(.topic): \(.error.message)"' >&2
    else
        printf '%s\n' "$body"
    fi
    exit 0
fi

# Read one connection: sets `status`, `flowed`, `bye` and `pause`, and prints messages up to the limit.
follow() {
    status=000 flowed='' bye='' pause='' event=''
    rm -f "$folder/stream"
    mkfifo "$folder/stream"
    get /api/v1/stream "$@" >"$folder/stream" &
    reader=$!
    while IFS= read -r line; do
        case $line in
            'status: '*) status=${line#status: } ;;
            'event: '*) event=${line#event: } ;;
            'data: '*)
                data=${line#data: }
                case $event in
                    ack) case $data in *'"ok":false'*) say "$data" ;; esac ;;
                    bye)
                        bye=$data
                        pause=$(printf '%s' "$data" | sed -n 's/.*"retry_after_ms":\([0-9]*\).*/\1/p')
                        ;;
                    error) say "$data" ;;
                    *)
                        flowed=yes
                        printf '%s\n' "$data" 2>/dev/null || exit 0 # nobody reads it any more
                        count=$((count + 1))
                        [ "$count" -ne "$limit" ] || break
                        ;;
                esac
                ;;
            '' | :* | 'retry: '*) ;; # the end of an event, a heartbeat, advice to browsers
            *) say "$line" ;;        # an answer that is no stream: it says why
        esac
    done <"$folder/stream"
    kill "$reader" 2>/dev/null || true # where there was enough; otherwise it has ended
    wait "$reader" 2>/dev/null || true
    reader=''
}

follow_on() {
    count=0 ceiling=1
    while :; do
        follow "$@"
        if [ "$limit" -gt 0 ] && [ "$count" -ge "$limit" ]; then return 0; fi
        # Codes from 4500 on mean: do not come back. So do answers that another try would not change.
        case $bye in *'"code":45'* | *'"code":4[6-9]'*) say "$bye"; return 1 ;; esac
        case $status in 4*) return 1 ;; esac
        # Full jitter under a ceiling that doubles: all clients of a daemon lose it at the same moment, and must not
        # return at the same one. Only data sets it back: a connection that opens and dies again is no success.
        [ -z "$flowed" ] || ceiling=1
        wait_s=$(awk -v seed="$$$(date +%s)" -v ceiling="$ceiling" -v ms="${pause:-0}" \
            'BEGIN { srand(seed); printf "%.2f", ms / 1000 + rand() * ceiling }')
        ceiling=$((ceiling * 2 < 30 ? ceiling * 2 : 30))
        say "the connection ended${bye:+: $bye}; trying again in $wait_s s"
        sleep "$wait_s" & # and wait for it, because a trap waits for a sleep, but ends a `wait`
        wait $!
    done
}

# By fifos and not by pipes: this shell itself must read, so that signals reach it, and be able to end curl at once, which
# behind a broken pipe would live on until the next message.
mkfifo "$folder/lines"
pretty <"$folder/lines" &
printer=$!
code=0
follow_on "$@" >"$folder/lines" || code=$?
wait "$printer" || true
exit "$code"
