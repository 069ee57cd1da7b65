// Prints Megatron-LM's published A100 runs beside what the planner predicts.

#include <cstdio>

#include "scheduler/planner/megatron_table.h"

int main() {
  const auto table = trireme::MakeMegatronTable();
  if (!table.ok()) {
    std::fprintf(stderr, "%s\n", table.status().ToString().c_str());
    return 1;
  }
  std::fputs(trireme::ToText(*table).c_str(), stdout);
  return 0;
}
