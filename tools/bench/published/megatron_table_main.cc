// Prints Megatron-LM's published A100 runs, and those on H100s whose
// configurations are known, beside what the planner predicts.

#include <cstdio>

#include "tools/bench/published/megatron_h100_table.h"
#include "tools/bench/published/megatron_table.h"

int main() {
  const auto table = trireme::MakeMegatronTable();
  if (!table.ok()) {
    std::fprintf(stderr, "%s\n", table.status().ToString().c_str());
    return 1;
  }
  std::fputs(trireme::ToText(*table).c_str(), stdout);
  const auto h100 = trireme::MakeH100Table(table->simulated.constants);
  if (!h100.ok()) {
    std::fprintf(stderr, "%s\n", h100.status().ToString().c_str());
    return 1;
  }
  std::printf("\n%s", trireme::ToText(*h100).c_str());
  return 0;
}
