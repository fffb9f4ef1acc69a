#!/usr/bin/env bash
# Start a vLLM server that names features, and say when it is ready.
#
#   scripts/serve_labeller.sh [MODEL [further options of `vllm serve`]]
#   scripts/serve_labeller.sh --health        is one running? exit status 0 or 1
#
# It runs in the foreground; Ctrl-C ends it. vLLM is not installed with saelens_steer: it brings a
# PyTorch of its own, so give it an environment of its own (`pip install vllm`).
#
# Memory on the GPU, in bfloat16: two bytes a parameter, a few GB for vLLM itself, and the KV cache,
# of which a question takes some 2,000 to 4,000 tokens. Computed from the models' configs:
#
#   MODEL                                  weights   KV cache of 8 questions   a card with
#   Qwen/Qwen3-4B-Instruct-2507            8 GB      5 GB (144 KiB a token)    24 GB
#   Qwen/Qwen3-30B-A3B-Instruct-2507-FP8   31 GB     3 GB (96 KiB a token)     48 GB
#   Qwen/Qwen3-30B-A3B-Instruct-2507       61 GB     3 GB                      80 GB
#
# Settings, as environment variables:
#   HOST             127.0.0.1: this machine alone; 0.0.0.0 for others too (then set VLLM_API_KEY)
#   PORT             8000
#   MAX_MODEL_LEN    16384, tokens of a question with its answer
#   GPU_MEMORY       0.90, the share of the card that vLLM takes
#   PARALLEL         1, GPUs that share the model
#   PATIENCE         1800, seconds until a server that does not come up is given up
#   VLLM_API_KEY     a key that clients have to send; read by vLLM, never on a command line
set -euo pipefail

host=${HOST:-127.0.0.1} port=${PORT:-8000} patience=${PATIENCE:-1800}
seen=$host
[[ $host == 0.0.0.0 || $host == :: ]] && seen=localhost
[[ $seen == *:* ]] && seen="[$seen]"

healthy() { curl --silent --fail --max-time 5 --output /dev/null "http://$seen:$port/health"; }

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0"
  exit 0
fi

if [[ ${1:-} == --health ]]; then
  healthy && echo "ready: http://$seen:$port/v1" && exit 0
  echo "no server answers at http://$seen:$port/health" >&2
  exit 1
fi

model=${1:-Qwen/Qwen3-30B-A3B-Instruct-2507}
shift || true
if ! command -v vllm >/dev/null; then
  echo "vllm is not installed here: pip install vllm, in an environment of its own" >&2
  exit 2
fi
healthy && { echo "something answers at http://$seen:$port already: set PORT" >&2; exit 2; }

vllm serve "$model" --host "$host" --port "$port" \
  --max-model-len "${MAX_MODEL_LEN:-16384}" \
  --gpu-memory-utilization "${GPU_MEMORY:-0.90}" \
  --tensor-parallel-size "${PARALLEL:-1}" \
  --generation-config vllm "$@" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

SECONDS=0
while ((SECONDS < patience)); do
  if healthy; then
    echo "ready: label.server={base_url: http://$seen:$port/v1, model: $model}"
    wait "$server"
    exit
  fi
  kill -0 "$server" 2>/dev/null || { echo "vllm ended before it was ready" >&2; exit 1; }
  sleep 1
done
echo "not ready after $patience s" >&2
exit 1
