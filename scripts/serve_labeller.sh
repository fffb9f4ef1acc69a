#!/usr/bin/env bash
# Start a vLLM server for labelling features, and print a line when it is ready.
#
#   scripts/serve_labeller.sh [MODEL [further options of `vllm serve`]]
#   scripts/serve_labeller.sh --health        is one running? exit status 0 or 1
#
# Runs in the foreground; Ctrl-C stops it. vLLM pins its own version of PyTorch, so install it in a
# separate environment (`pip install vllm`).
#
# GPU memory in bfloat16: two bytes per parameter, a few GB for vLLM itself, and the KV cache, at
# 2,000 to 4,000 tokens per question. Computed from the models' configs:
#
#   MODEL                                  weights   KV cache of 8 questions   GPU with
#   Qwen/Qwen3-4B-Instruct-2507            8 GB      5 GB (144 KiB per token)  24 GB
#   Qwen/Qwen3-30B-A3B-Instruct-2507-FP8   31 GB     3 GB (96 KiB per token)   48 GB
#   Qwen/Qwen3-30B-A3B-Instruct-2507       61 GB     3 GB                      80 GB
#
# Settings, as environment variables:
#   HOST             127.0.0.1: this machine only; 0.0.0.0 for other machines too (then set VLLM_API_KEY)
#   PORT             8000
#   MAX_MODEL_LEN    16384, maximum tokens in a question and its answer
#   GPU_MEMORY       0.90, the share of GPU memory that vLLM may use
#   PARALLEL         1, number of GPUs that share the model
#   PATIENCE         1800, seconds to wait for the server to be ready
#   VLLM_API_KEY     the key that clients must send; vLLM reads it from the environment
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
  echo "vllm is not installed: run pip install vllm in a separate environment" >&2
  exit 2
fi
healthy && { echo "a server is already running at http://$seen:$port: set PORT to another port" >&2; exit 2; }

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
