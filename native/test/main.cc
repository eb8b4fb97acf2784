// Runs the C++ tests: `tests [part of a name]...`, `tests --list`. Exit code 1 if any fails.
#include <string.h>

#include "test.h"

namespace {

bool isSelected(const char* name, int argc, char** argv) {
  if (argc < 2) return true;
  for (int i = 1; i < argc; ++i) {
    if (strstr(name, argv[i]) != nullptr) return true;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace sdpa::test;
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (const TestCase& test : testCases()) std::cout << test.name << "\n";
    return 0;
  }
  int passed = 0;
  int failed = 0;
  for (const TestCase& test : testCases()) {
    if (!isSelected(test.name, argc, argv)) continue;
    failures() = 0;
    test.body();
    if (failures() == 0) {
      ++passed;
    } else {
      ++failed;
      std::cout << "FAILED " << test.name << "\n";
    }
  }
  std::cout << passed << " passed, " << failed << " failed\n";
  // A filter that selects nothing is a mistake, not a success.
  return failed == 0 && passed > 0 ? 0 : 1;
}
