// Continuous batching's inner loop: every sequence has its own cache, and most of them begin with the same prompt.
//
//   shared keys of each group of caches             // runtime/shared_prefix.h
//     rows = the queries of all caches of the group // one problem: K and V are read once for all of them
//     states (m, l, o) of each chunk of keys        // as in decode; every query sees every such key
//   the rest of each cache                          // an ordinary problem: causality, lengths, masks of the new tokens
//     merge: shared states, then its own            // kernels/merge.h
//
// The cascade of FlashInfer (Ye et al. 2025, §3.1.2) and of Hydragen (Juravsky et al. 2024, §3). A prefix of P keys read by n
// caches costs one read of it instead of n; the arithmetic stays, and runs as a matrix product.
//
// What depends on a key's distance from the query (windows, ALiBi), and a mask or a bias over all keys, is left to
// the ordinary problem, each cache by itself.
#include "runtime/step_all.h"

#include <string.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "intervals.h"
#include "runtime/dispatch.h"
#include "runtime/scratch.h"
#include "runtime/shared_prefix.h"
#include "runtime/thread_pool.h"

namespace sdpa {
namespace {

// Rows of a shared problem at most, so that scratch and partials stay small.
constexpr int64_t kSharedRows = 256;
// Chunks of one call over its KV heads and blocks of rows, about: tasks for many threads, but not many partials.
constexpr int64_t kSharedTasks = 128;

int64_t elementBytes(DType dtype) { return dtype == kFloat32 ? 4 : 2; }

// Points the sequences at their caches: all runs of sequence i begin at firstRun[i].
void pointAtCaches(Problem& problem, std::vector<Sequence>& sequences, const std::vector<const KvTokens*>& caches,
                   std::vector<KeyRun>& runs) {
  std::vector<size_t> firstRun;
  for (const KvTokens* cache : caches) {
    firstRun.push_back(runs.size());
    cache->appendRuns(0, runs);
  }
  firstRun.push_back(runs.size());
  for (size_t i = 0; i < caches.size(); ++i) {
    Sequence& sequence = sequences[i];
    sequence.runs = runs.data() + firstRun[i];
    sequence.numRuns = static_cast<int64_t>(firstRun[i + 1] - firstRun[i]);
    sequence.keptBegin = caches[i]->keptBegin();
  }
  const int64_t bytes = caches[0]->config().strideUnit();
  problem.kRowStride = caches[0]->kRowStrideBytes() / bytes;
  problem.vRowStride = caches[0]->vRowStrideBytes() / bytes;
  if (problem.windowLeft >= kOpen) problem.sinkTokens = 0;  // nothing is hidden that they could show
  problem.sequences = sequences.data();
}

bool mayShare(const Problem& problem) {
  return problem.windowLeft >= kOpen && !problem.alibiSlopes && !problem.bias;
}

// Keys that every query of a sequence sees; 0 where it has none, or so many that each cache is arithmetic enough.
int64_t sharedLimit(const Problem& problem, const Sequence& sequence) {
  const int64_t rows = sequence.qLen * problem.groupSize;
  if (rows == 0 || rows > kMaxDecodeRows || sequence.keptBegin > 0) return 0;
  const int64_t end = visibleKeys(problem, sequence, 0).end;
  return problem.mask ? minimum(end, sequence.maskBegin) : end;
}

// The passes over shared keys, and what they leave for each sequence.
class SharedPasses {
 public:
  // `problem` is the whole one; it must outlive this.
  SharedPasses(const Problem& problem, const std::vector<Sequence>& sequences)
      : whole_(problem), sequences_(sequences), problem_(problem) {
    statesOf_.resize(sequences.size());
    problem_.mask = nullptr;
    problem_.sinks = nullptr;
    problem_.windowRight = kOpen;
  }

  void add(const SharedKeys& keys) {
    const int64_t most = maximum(1, kSharedRows / problem_.groupSize);  // queries of a block
    for (size_t i = 0; i < keys.members.size();) {
      const size_t first = i;
      int64_t queries = 0;
      for (; i < keys.members.size(); ++i) {
        const int64_t qLen = sequenceAt(keys.members[i]).qLen;
        if (queries > 0 && queries + qLen > most) break;
        queries += qLen;
      }
      Block block;
      block.begin = keys.begin;
      block.end = keys.end;
      block.queries = queries;
      for (size_t member = first; member < i; ++member) block.members.push_back(keys.members[member]);
      blocks_.push_back(std::move(block));
    }
  }

  // Runs them, and gives each sequence its states. The caller's sequences then begin behind the shared keys.
  RunStatus run(std::vector<Sequence>& sequences) {
    static thread_local Workspace workspace;
    plan();
    if (!workspace.hold(numFloats_)) return RunStatus::kOutOfMemory;
    packQueries();
    for (size_t i = 0; i < tasks_.size(); ++i) tasks_[i].partial = workspace.floats.get() + offsets_[i];
    const KernelTable& kernels = activeKernels();
    problem_.q = queries_.data();
    problem_.sequences = passes_.data();
    problem_.numSequences = static_cast<int64_t>(passes_.size());
    Job job{kernels, problem_, tasks_, 0, {false}};
    for (const Sequence& pass : passes_) {
      job.scratchBytes = std::max(job.scratchBytes, kernels.decodeScratchBytes(problem_, pass.qLen * problem_.groupSize));
    }
    ThreadPool::shared().parallelFor(static_cast<int64_t>(tasks_.size()), Job::execute, &job, {whole_.threads, nullptr});
    if (job.outOfMemory.load()) return RunStatus::kOutOfMemory;
    handOver(workspace.floats.get(), sequences);
    return RunStatus::kDone;
  }

 private:
  struct Block {
    int64_t begin = 0, end = 0, queries = 0;
    std::vector<int64_t> members;
    int64_t firstFloat = 0, numChunks = 0;
  };

  struct Workspace {
    std::unique_ptr<float[]> floats;
    int64_t capacity = 0;

    bool hold(int64_t count) {
      if (count <= capacity) return true;
      capacity = 0;
      floats.reset(new (std::nothrow) float[static_cast<size_t>(count)]);
      if (floats) capacity = count;
      return floats != nullptr;
    }
  };

  struct Job {
    const KernelTable& kernels;
    const Problem& problem;
    const std::vector<DecodeTask>& tasks;
    size_t scratchBytes;
    std::atomic<bool> outOfMemory;

    static void execute(void* context, int64_t task, int) {
      Job& job = *static_cast<Job*>(context);
      void* memory = scratch(job.scratchBytes);
      if (!memory) return job.outOfMemory.store(true, std::memory_order_relaxed);
      job.kernels.decode(job.problem, job.tasks[static_cast<size_t>(task)], memory);
    }
  };

  const Sequence& sequenceAt(int64_t i) const { return sequences_[static_cast<size_t>(i)]; }

  // The cut depends on the call alone, never on the number of threads.
  int64_t chunkKeys(const Block& block) const {
    const int64_t cuts = maximum(1, kSharedTasks / (problem_.numKvHeads * static_cast<int64_t>(blocks_.size())));
    return roundUp((block.end - block.begin + cuts - 1) / cuts, kDecodeChunk);
  }

  void plan() {
    for (Block& block : blocks_) {
      const Sequence& member = sequenceAt(block.members[0]);
      Sequence pass{};
      pass.qLen = block.queries;
      pass.kvLen = block.end;
      pass.qOffset = numQueries_ * problem_.numHeads * problem_.headDim;
      pass.runs = member.runs;
      pass.numRuns = member.numRuns;
      pass.keptBegin = block.begin;
      numQueries_ += block.queries;
      block.firstFloat = numFloats_;
      const int64_t floats = partialFloats(block), step = chunkKeys(block);
      const int64_t firstChunk = block.begin / step * step;
      for (int64_t head = 0; head < problem_.numKvHeads; ++head) {
        for (int64_t chunk = firstChunk; chunk < block.end; chunk += step, numFloats_ += floats) {
          tasks_.push_back({static_cast<int64_t>(passes_.size()), head, maximum(chunk, block.begin),
                            minimum(chunk + step, block.end), nullptr});
          offsets_.push_back(numFloats_);
        }
      }
      block.numChunks = (block.end - firstChunk + step - 1) / step;
      passes_.push_back(pass);
    }
  }

  int64_t partialFloats(const Block& block) const {
    return decodePartialFloats(block.queries * problem_.groupSize, problem_.valueDim);
  }

  // The queries of a block one behind the other, [queries][numHeads][headDim].
  void packQueries() {
    const int64_t bytes = elementBytes(problem_.qDType), rowBytes = problem_.headDim * bytes;
    queries_.resize(static_cast<size_t>(numQueries_ * problem_.numHeads * rowBytes));
    uint8_t* place = queries_.data();
    for (const Block& block : blocks_) {
      for (int64_t member : block.members) {
        const Sequence& sequence = sequenceAt(member);
        for (int64_t i = 0; i < sequence.qLen; ++i) {
          for (int64_t head = 0; head < problem_.numHeads; ++head, place += rowBytes) {
            const int64_t row = sequence.qOffset + head * whole_.qHeadStride + i * whole_.qRowStride;
            memcpy(place, static_cast<const uint8_t*>(whole_.q) + row * bytes, static_cast<size_t>(rowBytes));
          }
        }
      }
    }
    problem_.qHeadStride = problem_.headDim;
    problem_.qRowStride = problem_.numHeads * problem_.headDim;
  }

  void handOver(float* floats, std::vector<Sequence>& sequences) {
    for (const Block& block : blocks_) {
      const int64_t stride = partialFloats(block), rows = block.queries * problem_.groupSize;
      int64_t row = 0;
      for (int64_t member : block.members) {
        const size_t i = static_cast<size_t>(member);
        statesOf_[i].push_back({floats + block.firstFloat, block.numChunks, stride, block.numChunks * stride, rows, row});
        row += sequences[i].qLen * problem_.groupSize;
        sequences[i].keptBegin = block.end;
      }
    }
    for (size_t i = 0; i < sequences.size(); ++i) {
      sequences[i].shared = statesOf_[i].data();
      sequences[i].numShared = static_cast<int64_t>(statesOf_[i].size());
    }
  }

  const Problem& whole_;
  const std::vector<Sequence>& sequences_;
  Problem problem_;
  std::vector<Block> blocks_;
  std::vector<Sequence> passes_;
  std::vector<DecodeTask> tasks_;
  std::vector<int64_t> offsets_;  // of each task's partial
  std::vector<uint8_t> queries_;
  std::vector<std::vector<SharedStates>> statesOf_;
  int64_t numQueries_ = 0, numFloats_ = 0;
};

RunStatus shareAndRun(Problem problem, std::vector<Sequence>& sequences, const std::vector<const KvTokens*>& caches) {
  std::vector<KeyRun> runs;
  pointAtCaches(problem, sequences, caches, runs);
  std::vector<SharedKeys> shared;
  if (mayShare(problem)) {
    std::vector<int64_t> limits;
    for (const Sequence& sequence : sequences) limits.push_back(sharedLimit(problem, sequence));
    shared = findSharedKeys(sequences, limits);
  }
  if (shared.empty()) return runAttention(problem);
  SharedPasses passes(problem, sequences);
  for (const SharedKeys& keys : shared) passes.add(keys);
  const RunStatus status = passes.run(sequences);
  return status == RunStatus::kDone ? runAttention(problem) : status;
}

}  // namespace

RunStatus attendAll(const Problem& problem, std::vector<Sequence>& sequences, const std::vector<const KvTokens*>& caches) {
  try {
    return shareAndRun(problem, sequences, caches);
  } catch (const std::exception&) {
    return RunStatus::kOutOfMemory;
  }
}

}  // namespace sdpa
