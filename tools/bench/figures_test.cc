#include "tools/bench/figures.h"

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace trireme {
namespace {

TEST(Figures, KeysWithoutThreadsComeFromTheGivenCount) {
  Figures figures = {{"gemm.bf16.threads1.gflops", 1},
                     {"gemm.bf16.threads2.gflops", 2},
                     {"gemm.bf16.threads12.gflops", 12}};
  AddKeysWithoutThreads(2, &figures);
  EXPECT_EQ(figures.size(), 4);
  EXPECT_EQ(Find(figures, "gemm.bf16.gflops"), 2);
  EXPECT_EQ(Find(figures, "gemm.fp32.gflops"), std::nullopt);
}

TEST(Figures, AreWrittenAsJson) {
  const std::string path = testing::TempDir() + "/figures.json";
  const Figures figures = {{"a.s", 0.5}, {"b", 3}};
  ASSERT_TRUE(WriteJson(figures, path).ok());
  std::ifstream file(path);
  EXPECT_EQ(nlohmann::json::parse(file).get<Figures>(), figures);
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
}

TEST(Figures, AnUnwritablePathIsAnError) {
  EXPECT_FALSE(WriteJson({}, testing::TempDir() + "/no/folder/f.json").ok());
}

}  // namespace
}  // namespace trireme
