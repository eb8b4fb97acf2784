#include "runtime/shared_prefix.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "intervals.h"

namespace sdpa {
namespace {

// The run of a sequence that holds `key`; null where none does.
const KeyRun* runWith(const Sequence& sequence, int64_t key) {
  for (int64_t i = 0; i < sequence.numRuns; ++i) {
    const KeyRun& run = sequence.runs[i];
    if (run.begin <= key && key < run.end) return &run;
  }
  return nullptr;
}

struct Search {
  const std::vector<Sequence>& sequences;
  const std::vector<int64_t>& limits;
  std::vector<SharedKeys> found;

  // Of a sequence whose keys before `begin` are shared, where the memory in which the next lie is left.
  int64_t endOfMemory(int64_t member, const KeyRun& run) const {
    return minimum(limits[static_cast<size_t>(member)], run.end) / kRunAlign * kRunAlign;
  }

  struct Place {
    const void* memory;  // of the next key
    int64_t member, end;
  };

  void addPlace(int64_t member, int64_t begin, std::vector<Place>& places) const {
    const KeyRun* run = runWith(sequences[static_cast<size_t>(member)], begin);
    if (run && endOfMemory(member, *run) > begin) places.push_back({run->k, member, endOfMemory(member, *run)});
  }

  void begin() {
    std::vector<Place> places;
    for (size_t i = 0; i < sequences.size(); ++i) addPlace(static_cast<int64_t>(i), 0, places);
    group(0, places);
  }

  // Those that share found[i] and go on together.
  void goOn(size_t i) {
    std::vector<Place> places;
    const int64_t end = found[i].end;
    for (int64_t member : found[i].members) addPlace(member, end, places);
    group(end, places);
  }

  // `places` of sequences that share all keys before `begin`.
  void group(int64_t begin, std::vector<Place>& places) {
    const auto isBefore = [](const Place& a, const Place& b) { return std::less<const void*>()(a.memory, b.memory); };
    std::stable_sort(places.begin(), places.end(), isBefore);
    for (size_t first = 0; first < places.size();) {
      SharedKeys keys{begin, kOpen, {}};
      const void* const memory = places[first].memory;
      for (; first < places.size() && places[first].memory == memory; ++first) {
        keys.members.push_back(places[first].member);
        keys.end = minimum(keys.end, places[first].end);
      }
      if (keys.members.size() < 2) continue;
      const size_t place = found.size();
      found.push_back(std::move(keys));
      goOn(place);
    }
  }
};

}  // namespace

std::vector<SharedKeys> findSharedKeys(const std::vector<Sequence>& sequences, const std::vector<int64_t>& limits) {
  Search search{sequences, limits, {}};
  search.begin();
  return std::move(search.found);
}

}  // namespace sdpa
