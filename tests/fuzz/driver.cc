// Runs a fuzz target without libFuzzer: on its seeds, then on what a Mutator
// makes of them.
//
//   TARGET [--runs=N] [--seed=S] [--max_bytes=N] SEED...
//
// SEED is a file, or a folder of them. An input that ends the program, or that
// takes more than ten seconds of the processor, is written to fuzz_crash.bin
// (in $TEST_UNDECLARED_OUTPUTS_DIR, if that is set), which may be given as a
// seed. Where the program tells which of its blocks run (coverage.h), inputs
// that reached new ones are changed further.

#include <fcntl.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "fmt/format.h"
#include "tests/fuzz/coverage.h"
#include "tests/fuzz/mutator.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// Of the sanitizers, where the program has them.
extern "C" void __sanitizer_set_death_callback(void (*callback)())
    __attribute__((weak));

namespace trireme {
namespace {

namespace fs = std::filesystem;

constexpr int kMostSeconds = 10;
constexpr std::array kDeadly = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};

// What a signal handler has to know.
struct Running {
  std::string path;
  const std::string* input = nullptr;
};
Running& TheRunning() {
  static Running running;
  return running;
}

void WriteInput() {
  const Running& running = TheRunning();
  if (running.input == nullptr) return;
  const int file =
      open(running.path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  [[maybe_unused]] const ssize_t written =
      write(file, running.input->data(), running.input->size());
  close(file);
}

void OnDeath(int signal_number) {
  WriteInput();
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

void OnAlarm(int) {
  constexpr std::string_view kText =
      "an input takes more than ten seconds of the processor\n";
  [[maybe_unused]] const ssize_t written =
      write(STDERR_FILENO, kText.data(), kText.size());
  abort();
}

// Of the processor's time, which does not depend on who else uses it; 0: none.
void SetTimer(int seconds) {
  const itimerval timer = {.it_interval = {}, .it_value = {.tv_sec = seconds}};
  setitimer(ITIMER_PROF, &timer, nullptr);
}

void Run(const std::string& input) {
  TheRunning().input = &input;
  SetTimer(kMostSeconds);
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()),
                         input.size());
  SetTimer(0);
  TheRunning().input = nullptr;
}

std::string ReadAll(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file),
          std::istreambuf_iterator<char>()};
}

std::vector<std::string> ReadSeeds(const std::vector<std::string>& paths) {
  std::vector<fs::path> files;
  for (const std::string& path : paths) {
    if (!fs::is_directory(path)) {
      files.emplace_back(path);
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> seeds;
  // Whoever gives a seed that is not there would run another test.
  for (const fs::path& file : files) {
    if (!fs::exists(file)) {
      fmt::print(stderr, "{}: no such file\n", file.string());
      return {};
    }
  }
  for (const fs::path& file : files) seeds.push_back(ReadAll(file));
  return seeds;
}

// "--NAME=" in front of a number; false: it is another argument.
bool TakeNumber(std::string_view argument, std::string_view name,
                uint64_t& value) {
  if (!argument.starts_with(name)) return false;
  argument.remove_prefix(name.size());
  return absl::SimpleAtoi(absl::string_view(argument.data(), argument.size()),
                          &value);
}

int Main(const std::vector<std::string>& arguments) {
  uint64_t runs = 1000, seed = 1, max_bytes = 1 << 16;
  std::vector<std::string> paths;
  for (const std::string& argument : arguments) {
    if (!TakeNumber(argument, "--runs=", runs) &&
        !TakeNumber(argument, "--seed=", seed) &&
        !TakeNumber(argument, "--max_bytes=", max_bytes)) {
      paths.push_back(argument);
    }
  }
  const std::vector<std::string> seeds = ReadSeeds(paths);
  if (seeds.empty()) {
    fmt::print(stderr, "found no seed, expected files or folders of them\n");
    return 2;
  }
  const char* const outputs = std::getenv("TEST_UNDECLARED_OUTPUTS_DIR");
  TheRunning().path =
      (outputs == nullptr ? "." : std::string(outputs)) + "/fuzz_crash.bin";
  for (const int deadly : kDeadly) signal(deadly, OnDeath);
  signal(SIGPROF, OnAlarm);
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback(WriteInput);
  }
  const auto start = std::chrono::steady_clock::now();
  for (const std::string& input : seeds) Run(input);
  Mutator mutator(seeds, seed, max_bytes);
  int64_t reached = BlocksReached();
  for (uint64_t i = 0; i < runs; ++i) {
    std::string input = mutator.Next();
    Run(input);
    if (BlocksReached() <= reached) continue;
    reached = BlocksReached();
    mutator.Add(std::move(input));
  }
  fmt::print(
      "{} inputs of {} seeds, by seed {}, in {:.1f} s\n", seeds.size() + runs,
      seeds.size(), seed,
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count());
  if (reached > 0) fmt::print("{} blocks reached\n", reached);
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  return trireme::Main({argv + 1, argv + argc});
}
