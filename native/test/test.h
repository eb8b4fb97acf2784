// A test registry in one header: TEST(name) { CHECK(...); } in any file; main.cc runs those whose name
// contains one of the command line's arguments (all without arguments).
#pragma once

#include <math.h>

#include <iostream>
#include <string>
#include <vector>

namespace sdpa {
namespace test {

struct TestCase {
  const char* name;
  void (*body)();
};

inline std::vector<TestCase>& testCases() {
  static std::vector<TestCase> cases;
  return cases;
}

struct Registration {
  Registration(const char* name, void (*body)()) { testCases().push_back({name, body}); }
};

// Failed checks of the test that is running. Checks belong on the thread that runs the test.
inline int& failures() {
  static int count = 0;
  return count;
}

inline void fail(const char* file, int line, const std::string& what) {
  ++failures();
  std::cout << file << ":" << line << ": " << what << "\n";
}

template <typename A, typename B>
void checkEqual(const A& actual, const B& expected, const char* text, const char* file, int line) {
  if (actual == expected) return;
  std::cout << "  actual " << actual << ", expected " << expected << "\n";
  fail(file, line, text);
}

// |actual - expected| <= tolerance; NaN never passes.
inline void checkNear(double actual, double expected, double tolerance, const char* file, int line) {
  if (fabs(actual - expected) <= tolerance) return;
  std::cout << "  actual " << actual << ", expected " << expected << " within " << tolerance << "\n";
  fail(file, line, "values too far apart");
}

}  // namespace test
}  // namespace sdpa

#define TEST(name)                                                                     \
  static void test_##name();                                                           \
  static const sdpa::test::Registration registration_##name(#name, test_##name);       \
  static void test_##name()

#define CHECK(condition)                                                               \
  do {                                                                                 \
    if (!(condition)) sdpa::test::fail(__FILE__, __LINE__, "CHECK(" #condition ")");   \
  } while (0)

#define CHECK_EQ(actual, expected)                                                     \
  sdpa::test::checkEqual((actual), (expected), "CHECK_EQ(" #actual ", " #expected ")", __FILE__, __LINE__)

#define CHECK_NEAR(actual, expected, tolerance)                                        \
  sdpa::test::checkNear((actual), (expected), (tolerance), __FILE__, __LINE__)
