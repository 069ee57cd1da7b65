// A checkpoint that several ranks wrote, read by others: the same tensors,
// whatever cut them then and cuts them now; and files that are not to be
// trusted.

#include "parallel/sharding/stored_tensors.h"

#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kRows = 12, kColumns = 8;

// The part of a [kRows, kColumns] tensor of numbers 0, 1, .. that shards and a
// range of them leave.
TensorPart PartOf(Device& device, std::vector<ShardedDim> shards, int64_t begin,
                  int64_t end, int data_shards = 1) {
  std::vector<float> shard;
  ForEachLocalRun(Shape{kRows, kColumns}, shards,
                  [&](int64_t, int64_t global, int64_t count) {
                    for (int64_t i = 0; i < count; ++i) {
                      shard.push_back(static_cast<float>(global + i));
                    }
                  });
  const std::vector<float> own(shard.begin() + begin, shard.begin() + end);
  return {.name = "w",
          .global_shape = {kRows, kColumns},
          .shards = std::move(shards),
          .local = Tensor::FromValues<float>(device, {end - begin}, own),
          .begin = begin,
          .end = end,
          .data_shards = data_shards};
}

ShardedDim Cut(Axis axis, int dim, int parts, int index) {
  return {.axis = axis, .dim = dim, .parts = parts, .index = index};
}

void Write(const std::string& folder, const StoredFile& file) {
  if (!file.index.empty()) {
    CHECK_OK(WriteFileAtomically(folder + "/" + file.index_name, file.index));
  }
  if (file.name.empty()) return;
  std::vector<SafetensorsEntry> entries;
  for (const TensorPart& part : file.parts) entries.push_back(EntryOf(part));
  auto writer =
      SafetensorsWriter::Create(folder + "/" + file.name, entries, {}).value();
  for (const TensorPart& part : file.parts) {
    CHECK_OK(
        writer->Append(part.name, part.local.raw_data(), part.local.bytes()));
  }
  CHECK_OK(writer->Commit().status());
}

class StoredTensorsTest : public ::testing::Test {
 protected:
  StoredTensorsTest() : folder_(testing::TempDir() + "/stored_tensors_test") {
    std::filesystem::remove_all(folder_);
    CHECK_OK(MakeDirectories(folder_));
  }

  // tp cuts columns, and two data-parallel ranks share each shard.
  void WriteByFour() {
    RunThreadRanks(4, [&](CommunicatorFactory& factory, int) {
      CpuDevice device(int64_t{1} << 30);
      const ProcessGrid grid =
          ProcessGrid::Create({.tp = 2, .dp = 2}, {}, factory.world_rank())
              .value();
      Communicators communicators(factory, grid);
      ParallelContext context(device, grid, communicators);
      const int64_t half = kRows * kColumns / 4;
      const int64_t begin = half * grid.coordinate(Axis::kData);
      Write(folder_,
            LayOutStoredFile(context, "model.safetensors",
                             {PartOf(device,
                                     {Cut(Axis::kTensor, 1, 2,
                                          grid.coordinate(Axis::kTensor))},
                                     begin, begin + half, /*data_shards=*/2)})
                .value());
    });
  }
  // Nothing is read that is not asked for; what is, is right.
  absl::Status ReadAndCompare(std::vector<ShardedDim> shards, int64_t begin,
                              int64_t end) {
    CpuDevice device(int64_t{1} << 30);
    const TensorPart expected = PartOf(device, shards, begin, end);
    TensorPart part = expected;
    part.local = Tensor::Zeros(device, {end - begin}, DType::kFloat32,
                               MemoryCategory::kParameters);
    ASSIGN_OR_RETURN(const auto stored,
                     StoredTensors::Open(folder_ + "/model.safetensors"));
    RETURN_IF_ERROR(stored->Read(part));
    EXPECT_EQ(Download<float>(part.local), Download<float>(expected.local));
    return absl::OkStatus();
  }

  const std::string folder_;
};

TEST_F(StoredTensorsTest, AnyCutReadsWhatAnyOtherWrote) {
  WriteByFour();
  EXPECT_TRUE(StoredTensors::Exist(folder_ + "/model.safetensors"));
  EXPECT_FALSE(StoredTensors::Exist(folder_ + "/ema.safetensors"));
  EXPECT_TRUE(
      std::filesystem::exists(folder_ + "/model-00003-of-00004.safetensors"));
  CHECK_OK(ReadAndCompare({}, 0, kRows * kColumns));
  CHECK_OK(ReadAndCompare({Cut(Axis::kTensor, 0, 3, 1)}, 0, 32));
  CHECK_OK(ReadAndCompare({Cut(Axis::kTensor, 1, 4, 3)}, 5, 17));
  CHECK_OK(ReadAndCompare(
      {Cut(Axis::kTensor, 1, 2, 1), Cut(Axis::kContext, 0, 2, 0)}, 1, 24));
}

TEST_F(StoredTensorsTest, APartIsReadWithoutTheFilesOfOthers) {
  WriteByFour();
  CpuDevice device(int64_t{1} << 30);
  const auto files = [&](std::vector<ShardedDim> shards, int64_t begin,
                         int64_t end) {
    const auto stored =
        StoredTensors::Open(folder_ + "/model.safetensors").value();
    return stored->FilesOf(PartOf(device, std::move(shards), begin, end))
        .value();
  };
  EXPECT_EQ(files({}, 0, 1).size(), 4u);
  // Other shards, of which only one half meets.
  EXPECT_EQ(files({Cut(Axis::kTensor, 1, 4, 3)}, 0, 1).size(), 2u);
  const ShardedDim half = Cut(Axis::kTensor, 1, 2, 0);
  const std::vector<std::string> own = files({half}, 0, 24);
  ASSERT_EQ(own.size(), 1u);
  const auto names = ListDirectory(folder_).value();
  for (const std::string& name : names) {
    if (name != own[0] && name.ends_with(".safetensors")) {
      std::filesystem::remove(folder_ + "/" + name);
    }
  }
  CHECK_OK(ReadAndCompare({half}, 0, 24));
  CHECK_OK(ReadAndCompare({half}, 3, 9));
  EXPECT_FALSE(ReadAndCompare({half}, 0, 25).ok());
}

TEST_F(StoredTensorsTest, WhatOneRankWroteIsAPlainFile) {
  RunThreadRanks(2, [&](CommunicatorFactory& factory, int) {
    CpuDevice device(int64_t{1} << 30);
    const ProcessGrid grid =
        ProcessGrid::Create({.dp = 2}, {}, factory.world_rank()).value();
    Communicators communicators(factory, grid);
    ParallelContext context(device, grid, communicators);
    Write(folder_, LayOutStoredFile(context, "model.safetensors",
                                    {PartOf(device, {}, 0, kRows * kColumns)})
                       .value());
  });
  EXPECT_EQ(ListDirectory(folder_).value(),
            std::vector<std::string>{"model.safetensors"});
  const auto file =
      SafetensorsFile::Open(folder_ + "/model.safetensors").value();
  EXPECT_EQ(file->tensors().at("w").shape, (Shape{kRows, kColumns}));
  CHECK_OK(ReadAndCompare({Cut(Axis::kTensor, 1, 2, 1)}, 0, 48));
}

TEST_F(StoredTensorsTest, AnIndexThatLiesIsRefused) {
  WriteByFour();
  const std::string path = folder_ + "/model.index.json";
  const std::string good = ReadFile(path, 1 << 20).value();
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    CHECK_OK(WriteFileAtomically(path, text));
    return MessageOf(ReadAndCompare({}, 0, kRows * kColumns));
  };
  EXPECT_THAT(with("\"version\": 1", "\"version\": 2"), HasSubstr("version 1"));
  EXPECT_THAT(with("model-00002", "../model-00002"),
              HasSubstr("files of the checkpoint's folder"));
  EXPECT_THAT(with("model-00002", "model-00009"), HasSubstr("model-00009"));
  EXPECT_THAT(with("\"begin\": 24", "\"begin\": 23"),
              HasSubstr("expected 25 elements"));
  EXPECT_THAT(with("\"end\": 48", "\"end\": 49"),
              HasSubstr("a begin and an end in its shard"));
  EXPECT_THAT(with("    8\n", "    7\n"),
              HasSubstr("shards that cut its shape"));
  EXPECT_THAT(with("    12,", "    4611686018427387904,"),
              HasSubstr("expected a shape"));
  EXPECT_THAT(with("    12,", "    1, 1, 1, 1, 1, 1, 1, 12,"),
              HasSubstr("expected a shape"));
  CHECK_OK(WriteFileAtomically(path, good));
  EXPECT_TRUE(ReadAndCompare({}, 0, kRows * kColumns).ok());
}

}  // namespace
}  // namespace trireme
