#include "runtime/checkpoint/checkpoint_folder.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/checksum.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class CheckpointFolderTest : public ::testing::Test {
 protected:
  CheckpointFolderTest()
      : parent_(testing::TempDir() + "/checkpoint_folder_test"),
        folder_(parent_ + "/checkpoints") {
    fs::remove_all(parent_);
    fs::create_directories(parent_);
  }
  ~CheckpointFolderTest() override { fs::remove_all(parent_); }

  std::string PathOf(int64_t step) const {
    return fmt::format("{}/step_{:08}", folder_, step);
  }

  // A complete checkpoint of one file.
  void Save(int64_t step, const std::string& content) {
    auto writer = CheckpointWriter::Create(folder_, step).value();
    ASSERT_TRUE(WriteFileAtomically(writer->PathOf("weights"), content).ok());
    ASSERT_TRUE(writer->Commit({{"model", "dit"}}, step * 8).ok());
  }

  std::string ManifestError(const std::string& manifest) {
    EXPECT_TRUE(
        WriteFileAtomically(PathOf(1) + "/manifest.json", manifest).ok());
    const absl::Status status = ReadManifest(PathOf(1)).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << manifest << ": " << status;
    EXPECT_THAT(MessageOf(status), HasSubstr(PathOf(1)));
    return MessageOf(status);
  }

  std::string parent_;
  std::string folder_;
};

TEST_F(CheckpointFolderTest, WhatIsCommittedIsReadAndVerified) {
  Save(100, "abc");
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("step_00000100"));
  EXPECT_THAT(ListDirectory(PathOf(100)).value(),
              ElementsAre("manifest.json", "weights"));
  const Manifest manifest = ReadManifest(PathOf(100)).value();
  EXPECT_EQ(manifest.step, 100);
  EXPECT_EQ(manifest.consumed_samples, 800);
  EXPECT_THAT(manifest.metadata, ElementsAre(Pair("model", "dit")));
  ASSERT_EQ(manifest.files.count("weights"), 1u);
  EXPECT_EQ(manifest.files.at("weights").bytes, 3);
  // XXH64 of "abc" with seed 0, from the Python package xxhash.
  EXPECT_EQ(manifest.files.at("weights").xxh64, "44bc2cf5ad770999");
  EXPECT_TRUE(VerifyChecksums(PathOf(100)).ok());
  EXPECT_TRUE(VerifyChecksums(PathOf(100), [] { return false; }).ok());
  EXPECT_TRUE(
      absl::IsCancelled(VerifyChecksums(PathOf(100), [] { return true; })));
}

// A file whose checksum was taken while it was written is not read again.
TEST_F(CheckpointFolderTest, WhatIsKnownOfAFileIsTaken) {
  auto writer = CheckpointWriter::Create(folder_, 7).value();
  ASSERT_TRUE(WriteFileAtomically(writer->PathOf("weights"), "abc").ok());
  writer->Add("weights", {.bytes = 3, .xxh64 = "0123456789abcdef"});
  ASSERT_TRUE(writer->Commit({}, 56).ok());
  EXPECT_THAT(MessageOf(VerifyChecksums(PathOf(7))),
              HasSubstr("found checksum 44bc2cf5ad770999, expected "
                        "0123456789abcdef"));
}

// Whoever of those that read at once comes to it first.
TEST_F(CheckpointFolderTest, OfManyDamagedFilesTheFirstIsTold) {
  constexpr int kFiles = 40;
  auto writer = CheckpointWriter::Create(folder_, 7).value();
  const auto path_of = [&](int file) {
    return fmt::format("{}/part-{:02}", PathOf(7), file);
  };
  for (int file = 0; file < kFiles; ++file) {
    const std::string name = fmt::format("part-{:02}", file);
    // The first are read for longest.
    const std::string content((kFiles - file) * 10000, 'a');
    ASSERT_TRUE(WriteFileAtomically(writer->PathOf(name), content).ok());
  }
  ASSERT_TRUE(writer->Commit({}, 56).ok());
  ASSERT_TRUE(VerifyChecksums(PathOf(7)).ok());
  for (int file = kFiles - 1; file >= 0; --file) {
    const std::string other((kFiles - file) * 10000, 'b');
    ASSERT_TRUE(WriteFileAtomically(path_of(file), other).ok());
    EXPECT_THAT(MessageOf(VerifyChecksums(PathOf(7))),
                HasSubstr(path_of(file) + ": found checksum"));
  }
}

// One thread alone would read a file of many GB at its own speed.
TEST_F(CheckpointFolderTest, LongFilesAreComparedByPieces) {
  constexpr int64_t kBytes = 2 * kChecksumPieceBytes + 3;
  const std::string content(kBytes, 'a');
  Checksum checksum;
  checksum.Update(std::string_view(content).substr(0, 1000));
  checksum.Update(std::string_view(content).substr(1000));
  const CheckpointFile known = checksum.Result();
  EXPECT_EQ(known.pieces.size(), 3 * 16u);
  EXPECT_EQ(known.pieces.substr(0, 16), known.pieces.substr(16, 16));

  auto writer = CheckpointWriter::Create(folder_, 7).value();
  ASSERT_TRUE(WriteFileAtomically(writer->PathOf("read"), content).ok());
  ASSERT_TRUE(WriteFileAtomically(writer->PathOf("known"), content).ok());
  writer->Add("known", known);
  ASSERT_TRUE(writer->Commit({}, 56).ok());
  const Manifest manifest = ReadManifest(PathOf(7)).value();
  EXPECT_EQ(manifest.files.at("read").pieces, known.pieces);
  EXPECT_EQ(manifest.files.at("known").pieces, known.pieces);
  EXPECT_TRUE(VerifyChecksums(PathOf(7)).ok());

  for (const int64_t at : {int64_t{0}, kChecksumPieceBytes, kBytes - 1}) {
    std::fstream file(PathOf(7) + "/known",
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at).put('b');
    file.close();
    EXPECT_THAT(
        MessageOf(VerifyChecksums(PathOf(7))),
        HasSubstr(fmt::format("known: bytes {} to ",
                              at / kChecksumPieceBytes * kChecksumPieceBytes)));
    std::fstream(PathOf(7) + "/known",
                 std::ios::in | std::ios::out | std::ios::binary)
        .seekp(at)
        .put('a');
  }
  EXPECT_TRUE(VerifyChecksums(PathOf(7)).ok());
}

// Of a program that did not know of pieces.
TEST_F(CheckpointFolderTest, LongFilesWithoutPiecesAreComparedWhole) {
  Save(1, std::string(kChecksumPieceBytes + 1, 'a'));
  const std::string path = PathOf(1) + "/manifest.json";
  auto manifest = nlohmann::json::parse(ReadFile(path, 1 << 20).value());
  ASSERT_EQ(manifest["files"]["weights"].erase("pieces_xxh64"), 1u);
  ASSERT_TRUE(WriteFileAtomically(path, manifest.dump()).ok());
  EXPECT_TRUE(VerifyChecksums(PathOf(1)).ok());
  manifest["files"]["weights"]["xxh64"] = "0123456789abcdef";
  ASSERT_TRUE(WriteFileAtomically(path, manifest.dump()).ok());
  EXPECT_THAT(MessageOf(VerifyChecksums(PathOf(1))),
              HasSubstr("weights: found checksum"));
}

// Another rank's file would be in no manifest, and nobody would miss it.
TEST_F(CheckpointFolderTest, WhatIsKnownAndNotThereIsAnError) {
  auto writer = CheckpointWriter::Create(folder_, 7).value();
  ASSERT_TRUE(WriteFileAtomically(writer->PathOf("weights"), "abc").ok());
  writer->Add("other", {.bytes = 2, .xxh64 = "0123456789abcdef"});
  EXPECT_THAT(MessageOf(writer->Commit({}, 56)),
              HasSubstr("other: found No such file"));
  EXPECT_TRUE(absl::IsNotFound(LatestCheckpoint(folder_).status()));
  ASSERT_TRUE(WriteFileAtomically(writer->PathOf("other"), "ab").ok());
  ASSERT_TRUE(writer->Commit({}, 56).ok());
  EXPECT_EQ(ReadManifest(PathOf(7)).value().files.size(), 2u);
}

TEST_F(CheckpointFolderTest, NobodyReadsAnUnfinishedOne) {
  EXPECT_TRUE(absl::IsNotFound(LatestCheckpoint(folder_).status()));
  Save(100, "old");
  const auto unfinished = CheckpointWriter::Create(folder_, 200).value();
  ASSERT_TRUE(WriteFileAtomically(unfinished->PathOf("weights"), "half").ok());
  // Neither does anyone read what only looks like a checkpoint.
  for (const char* name :
       {"step_00000300", "step_400", "step_", "step_0000050x", "notes",
        "step_00000600.partial", "step_99999999999999999999"}) {
    fs::create_directories(folder_ + "/" + name);
  }
  for (const char* name : {"step_400", "step_00000600.partial", "notes"}) {
    ASSERT_TRUE(
        WriteFileAtomically(folder_ + "/" + name + "/manifest.json", "{}")
            .ok());
  }
  EXPECT_EQ(LatestCheckpoint(folder_).value(), PathOf(100));
}

TEST_F(CheckpointFolderTest, TheLatestIsTheHighestStep) {
  Save(99999999, "a");
  Save(100000000, "b");
  Save(5, "c");
  EXPECT_EQ(LatestCheckpoint(folder_).value(), PathOf(100000000));
}

// A run must not start anew because its checkpoints cannot be read.
TEST_F(CheckpointFolderTest, AnUnreadableFolderIsNotAnEmptyOne) {
  ASSERT_TRUE(WriteFileAtomically(folder_, "a file").ok());
  const absl::Status status = LatestCheckpoint(folder_).status();
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(absl::IsNotFound(status));
  EXPECT_THAT(MessageOf(status), HasSubstr(folder_));
  EXPECT_FALSE(CheckpointWriter::Create(folder_, 1).ok());
}

TEST_F(CheckpointFolderTest, ANewOneReplacesTheOldOneOfTheSameStep) {
  Save(100, "old");
  const auto writer = CheckpointWriter::Create(folder_, 100).value();
  ASSERT_TRUE(WriteFileAtomically(writer->PathOf("other"), "new").ok());
  EXPECT_TRUE(VerifyChecksums(PathOf(100)).ok()) << "the old one is there yet";
  ASSERT_TRUE(writer->Commit({}, 7).ok());
  EXPECT_EQ(ReadManifest(PathOf(100)).value().consumed_samples, 7);
  EXPECT_THAT(ListDirectory(PathOf(100)).value(),
              ElementsAre("manifest.json", "other"));
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("step_00000100"));
  EXPECT_TRUE(VerifyChecksums(PathOf(100)).ok());
}

TEST_F(CheckpointFolderTest, ANewTryForgetsTheFilesOfTheLastOne) {
  const auto crashed = CheckpointWriter::Create(folder_, 100).value();
  ASSERT_TRUE(WriteFileAtomically(crashed->PathOf("stale"), "half").ok());
  Save(100, "whole");
  EXPECT_EQ(ReadManifest(PathOf(100)).value().files.size(), 1u);
}

TEST_F(CheckpointFolderTest, AWholeOneThatOnlyLacksItsNameGetsIt) {
  Save(100, "whole");
  fs::rename(PathOf(100), PathOf(100) + ".partial");
  Save(200, "whole");
  EXPECT_THAT(ListDirectory(folder_).value(),
              ElementsAre("step_00000100", "step_00000200"));
  EXPECT_TRUE(VerifyChecksums(PathOf(100)).ok());
}

// One that a run has gone on from before must not come up later as its newest.
TEST_F(CheckpointFolderTest, WhatIsRecoveredBeforeARunGoesOnStaysBehindIt) {
  Save(100, "old");
  Save(200, "whole");
  fs::rename(PathOf(200), PathOf(200) + ".partial");
  Save(300, "replaced");
  fs::rename(PathOf(300), PathOf(300) + ".partial.old");
  fs::create_directories(PathOf(400) + ".partial");
  ASSERT_TRUE(RecoverCheckpoints(folder_).ok());
  EXPECT_THAT(CheckpointSteps(folder_).value(), ElementsAre(100, 200, 300));
  ASSERT_TRUE(SetLaterCheckpointsAside(folder_, 100).ok());
  Save(150, "new");
  EXPECT_EQ(LatestCheckpoint(folder_).value(), PathOf(150));
  // What gave way to another one of its step.
  fs::copy(PathOf(150), PathOf(150) + ".partial.old");
  ASSERT_TRUE(RecoverCheckpoints(folder_).ok());
  EXPECT_THAT(ListDirectory(folder_).value(),
              ElementsAre("step_00000100", "step_00000150",
                          "step_00000200.aside", "step_00000300.aside"));
}

// A job that crashes while it saves would lose disk space each time.
TEST_F(CheckpointFolderTest, WhatCrashedJobsLeftIsRemovedAndNothingElse) {
  Save(100, "whole");
  const auto crashed = CheckpointWriter::Create(folder_, 200).value();
  ASSERT_TRUE(WriteFileAtomically(crashed->PathOf("weights"), "half").ok());
  for (const char* name : {"notes.partial", "step_7.partial", "step_x.partial",
                           "step_00000150.partial.mine"}) {
    fs::create_directories(folder_ + "/" + name);
  }
  Save(300, "whole");
  EXPECT_THAT(ListDirectory(folder_).value(),
              ElementsAre("notes.partial", "step_00000100",
                          "step_00000150.partial.mine", "step_00000300",
                          "step_7.partial", "step_x.partial"));
}

TEST_F(CheckpointFolderTest, DamageIsFoundAndNamed) {
  Save(100, "abc");
  const std::string weights = PathOf(100) + "/weights";
  ASSERT_TRUE(WriteFileAtomically(weights, "abd").ok());
  EXPECT_TRUE(ReadManifest(PathOf(100)).ok()) << "the size is right";
  const absl::Status changed = VerifyChecksums(PathOf(100));
  EXPECT_TRUE(absl::IsDataLoss(changed));
  EXPECT_THAT(MessageOf(changed), HasSubstr(weights + ": found checksum"));
  EXPECT_THAT(MessageOf(changed), HasSubstr("expected 44bc2cf5ad770999"));

  fs::resize_file(weights, 2);
  const absl::Status shorter = ReadManifest(PathOf(100)).status();
  EXPECT_TRUE(absl::IsDataLoss(shorter));
  EXPECT_THAT(MessageOf(shorter),
              HasSubstr(weights + ": found 2 bytes, expected 3 bytes"));

  fs::remove(weights);
  const absl::Status missing = ReadManifest(PathOf(100)).status();
  EXPECT_TRUE(absl::IsDataLoss(missing));
  EXPECT_THAT(MessageOf(missing), HasSubstr(weights + ": found No such file"));

  EXPECT_TRUE(absl::IsNotFound(ReadManifest(PathOf(200)).status()));
}

TEST_F(CheckpointFolderTest, RefusesBrokenManifests) {
  Save(1, "abc");
  const auto manifest = [](const std::string& version, const std::string& step,
                           const std::string& files) {
    return fmt::format(
        R"({{"version":{},"step":{},"consumed_samples":0,"metadata":{{}},)"
        R"("files":{}}})",
        version, step, files);
  };
  ASSERT_TRUE(WriteFileAtomically(PathOf(1) + "/manifest.json",
                                  manifest("1", "1", "{}"))
                  .ok());
  ASSERT_TRUE(ReadManifest(PathOf(1)).ok());
  for (const char* text : {"", "{", "[]", "null", "{}", "\xff"}) {
    ManifestError(text);
  }
  EXPECT_THAT(ManifestError(manifest("2", "1", "{}")),
              HasSubstr("version: found 2, expected 1"));
  for (const char* step : {"-1", "1.5", "\"1\"", "null", "1e400",
                           "9223372036854775808", "18446744073709551616"}) {
    ManifestError(manifest("1", step, "{}"));
  }
  for (const char* files :
       {"[]", "null", R"({"weights":3})", R"({"weights":{"bytes":3}})",
        R"({"weights":{"bytes":-3,"xxh64":""}})",
        R"({"weights":{"bytes":3,"xxh64":5}})",
        R"({"weights":{"bytes":3,"xxh64":"","pieces_xxh64":5}})",
        R"({"weights":{"bytes":3,"xxh64":"","pieces_xxh64":"0"}})",
        R"({"../step_00000001/weights":{"bytes":3,"xxh64":""}})",
        R"({"..":{"bytes":3,"xxh64":""}})", R"({"":{"bytes":3,"xxh64":""}})",
        R"({"weights":{"bytes":9223372036854775807,"xxh64":""}})"}) {
    ManifestError(manifest("1", "1", files));
  }
  ManifestError(std::string(100'000, '['));
}

TEST_F(CheckpointFolderTest, PruningKeepsTheNewest) {
  for (const int64_t step : {1, 2, 10, 20}) Save(step, "x");
  const auto unfinished = CheckpointWriter::Create(folder_, 30).value();
  ASSERT_TRUE(PruneCheckpoints(folder_, 0).ok());
  EXPECT_EQ(ListDirectory(folder_).value().size(), 5u) << "0 keeps all";
  ASSERT_TRUE(PruneCheckpoints(folder_, 2).ok());
  ASSERT_TRUE(PruneCheckpoints(folder_, 2).ok()) << "nothing left to prune";
  EXPECT_THAT(
      ListDirectory(folder_).value(),
      ElementsAre("step_00000010", "step_00000020", "step_00000030.partial"));
}

TEST_F(CheckpointFolderTest, WhatIsDamagedGivesWayToTheNewestWholeOne) {
  EXPECT_TRUE(absl::IsNotFound(FindWholeCheckpoint(folder_).status()));
  for (const int64_t step : {1, 2, 3, 4}) Save(step, "x");
  EXPECT_EQ(FindWholeCheckpoint(folder_)->manifest.step, 4);
  std::filesystem::remove(PathOf(4) + "/manifest.json");
  ASSERT_TRUE(WriteFileAtomically(PathOf(3) + "/weights", "y").ok());
  const WholeCheckpoint found = FindWholeCheckpoint(folder_).value();
  EXPECT_EQ(found.path, PathOf(2));
  ASSERT_EQ(found.damaged.size(), 2u);
  EXPECT_THAT(MessageOf(found.damaged[0]), HasSubstr("manifest.json"));
  EXPECT_THAT(MessageOf(found.damaged[1]), HasSubstr("found checksum"));

  EXPECT_EQ(FindWholeCheckpoint(folder_, 1)->path, PathOf(1));
  EXPECT_THAT(MessageOf(FindWholeCheckpoint(folder_, 3).status()),
              HasSubstr("found no whole checkpoint:"));
}

TEST_F(CheckpointFolderTest, WhatARunLeavesBehindStaysAside) {
  for (const int64_t step : {1, 2, 3}) Save(step, "x");
  ASSERT_TRUE(SetLaterCheckpointsAside(folder_, 1).ok());
  EXPECT_EQ(LatestCheckpoint(folder_).value(), PathOf(1));
  Save(2, "y");
  ASSERT_TRUE(SetLaterCheckpointsAside(folder_, 1).ok());
  EXPECT_THAT(ListDirectory(folder_).value(),
              ElementsAre("step_00000001", "step_00000002.aside",
                          "step_00000003.aside"));
  EXPECT_EQ(ReadFile(PathOf(2) + ".aside/weights", 10).value(), "y");
}

TEST_F(CheckpointFolderTest, LaterOnesAndUnfinishedOnesAreRemoved) {
  EXPECT_TRUE(RemoveLaterCheckpoints(folder_ + "/none", 1).ok());
  for (const int64_t step : {1, 2, 3}) Save(step, "x");
  // Whole but for its name, which the next writer would give it.
  std::filesystem::rename(PathOf(3), PathOf(3) + ".partial");
  ASSERT_TRUE(RemoveLaterCheckpoints(folder_, 1).ok());
  EXPECT_THAT(ListDirectory(folder_).value(), ElementsAre("step_00000001"));
}

TEST_F(CheckpointFolderTest, MetadataThatIsNoTextIsAnErrorAndMayBeRetried) {
  const auto writer = CheckpointWriter::Create(folder_, 3).value();
  EXPECT_TRUE(absl::IsInvalidArgument(writer->Commit({{"a", "\xff"}}, 0)));
  EXPECT_TRUE(absl::IsNotFound(LatestCheckpoint(folder_).status()));
  EXPECT_TRUE(writer->Commit({}, 0).ok());
  EXPECT_EQ(LatestCheckpoint(folder_).value(), PathOf(3));
}

}  // namespace
}  // namespace trireme
