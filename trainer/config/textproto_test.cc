#include "trainer/config/textproto.h"

#include <gtest/gtest.h>

#include <string>

#include "google/protobuf/util/message_differencer.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/job/job.pb.h"

namespace trireme {
namespace {

using google::protobuf::util::MessageDifferencer;

constexpr char kJob[] = R"(# A comment.
name: "flowers"
model {
  dit {
    preset: TINY
    hidden: 64
  }
}
data { image_folder { path: "a" 'b' } resolution: 32 }
global_batch: 8; steps: 0x10,
optimizer < learning_rate: 1e-3f weight_decay: 0 >
)";

std::string ErrorOf(std::string_view text) {
  Job job;
  const auto parsed = ParseTextProto(text, "job.textproto", &job);
  return parsed.ok() ? "no error" : MessageOf(parsed.status());
}

std::string PlanErrorOf(std::string_view text) {
  Plan plan;
  const auto parsed = ParseTextProto(text, "plan.textproto", &plan);
  return parsed.ok() ? "no error" : MessageOf(parsed.status());
}

TEST(TextProto, ReadsWhatProtobufTextAllows) {
  Job job;
  const auto parsed = ParseTextProto(kJob, "job.textproto", &job);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(job.name(), "flowers");
  EXPECT_EQ(job.model().dit().preset(), Dit::TINY);
  EXPECT_EQ(job.model().dit().hidden(), 64u);
  EXPECT_EQ(job.data().image_folder().path(), "ab");
  EXPECT_EQ(job.steps(), 16u);
  EXPECT_FLOAT_EQ(job.optimizer().learning_rate(), 1e-3);
  EXPECT_TRUE(job.optimizer().has_weight_decay());
}

TEST(TextProto, ReplacesWhatTheMessageHeld) {
  Job job;
  job.set_seed(7);
  ASSERT_TRUE(ParseTextProto("steps: 1", "job.textproto", &job).ok());
  EXPECT_EQ(job.seed(), 0u);
  EXPECT_EQ(job.steps(), 1u);
}

TEST(TextProto, LeavesTheMessageAloneWhenTheTextIsWrong) {
  Job job;
  job.set_seed(7);
  EXPECT_FALSE(ParseTextProto("seed: 8 stpes: 1", "j", &job).ok());
  EXPECT_EQ(job.seed(), 7u);
}

TEST(TextProto, ListsEveryProblemWithItsPlaceAndTheNearestName) {
  EXPECT_EQ(
      ErrorOf("model {\n"
              "  dit { hiden: 64 preset: TINNY\n"
              "        layers: 'four' }\n"
              "}\n"
              "optimizer { learning_rate: fast decay: SLOW }\n"
              "banana { peel: [1, { a: 2 }] } \n"
              "steps: -5\n"),
      "job.textproto:2:9: model.dit.hiden: unknown field 'hiden' in "
      "trireme.Dit; "
      "did you mean 'hidden'?\n"
      "job.textproto:2:27: model.dit.preset: found 'TINNY', expected one of "
      "CUSTOM, TINY, S, B, L, XL, XL_2; did you mean TINY?\n"
      "job.textproto:3:17: model.dit.layers: found 'four', expected an "
      "integer from 0 to 4294967295\n"
      "job.textproto:5:28: optimizer.learning_rate: found 'fast', expected a "
      "number\n"
      "job.textproto:5:40: optimizer.decay: found 'SLOW', expected one of "
      "CONSTANT, COSINE, LINEAR\n"
      "job.textproto:6:1: banana: unknown field 'banana' in trireme.Job; "
      "expected "
      "one of name, model, objective, data, global_batch, steps, optimizer, "
      "precision, seed, checkpoint, log, sample, memory_limit_bytes, "
      "communication_deadline_s, loss_scaling, init, train, health, "
      "validation, attention_kernels, fp8, tf32\n"
      "job.textproto:7:8: steps: found '-5', expected an integer from 0 to "
      "4294967295");
}

TEST(TextProto, SaysWhatOfTheWrongKindWasFound) {
  EXPECT_EQ(ErrorOf("model: 5"),
            "job.textproto:1:8: model: found '5', expected { the fields of a "
            "trireme.Model }");
  EXPECT_EQ(ErrorOf("steps { a: 1 } stpes: 1"),
            "job.textproto:1:7: found '{', expected ':'");
  EXPECT_EQ(ErrorOf("steps: 4294967296"),
            "job.textproto:1:8: steps: found '4294967296', expected an integer "
            "from 0 to 4294967295");
  EXPECT_EQ(ErrorOf("steps: [1]"),
            "job.textproto:1:8: steps: found '[', expected an integer from 0 "
            "to 4294967295");
  EXPECT_EQ(ErrorOf("optimizer { beta1: 0x10 }"),
            "job.textproto:1:20: optimizer.beta1: found '0x10', expected a "
            "number");
  EXPECT_EQ(ErrorOf("name: flowers"),
            "job.textproto:1:7: name: found 'flowers', expected a string in "
            "quotes");
  EXPECT_EQ(ErrorOf("model { dit { qk_norm: yes } }"),
            "job.textproto:1:24: model.dit.qk_norm: found 'yes', expected true "
            "or false");
  EXPECT_EQ(ErrorOf("model { dit { qk_norm: 2 } }"),
            "job.textproto:1:24: model.dit.qk_norm: found '2', expected true "
            "or false");
  EXPECT_EQ(ErrorOf("name: -\"flowers\""),
            "job.textproto:1:7: name: found '-\"flowers\"', expected a string "
            "in quotes");
  EXPECT_EQ(PlanErrorOf("placement: [0, x]"),
            "plan.textproto:1:16: placement[1]: found 'x', expected an integer "
            "from 0 to 4294967295");
}

TEST(TextProto, RefusesTwoValuesForOneFieldAndTwoChoicesOfOne) {
  EXPECT_EQ(ErrorOf("steps: 1\nsteps: 2"),
            "job.textproto:2:1: steps: found a second time, expected it once");
  EXPECT_EQ(
      ErrorOf("data { idx {} image_folder {} }"),
      "job.textproto:1:15: data.image_folder: found beside 'idx', expected "
      "only one of them, as they are choices of 'source'");
}

TEST(TextProto, SaysWhereTheTextBreaksOff) {
  EXPECT_EQ(ErrorOf("model {\n  dit {\n"),
            "job.textproto:3:1: found the end of the text, expected '}' for "
            "what line 2 opens");
  EXPECT_EQ(ErrorOf("steps: 1\n}"),
            "job.textproto:2:1: found '}', expected the name of a field");
  EXPECT_EQ(ErrorOf("steps:"),
            "job.textproto:1:7: steps: found the end of the text, expected an "
            "integer from 0 to 4294967295");
  EXPECT_EQ(ErrorOf("model { dit { qk_norm: } } stpes: 1"),
            "job.textproto:1:24: model.dit.qk_norm: found '}', expected true "
            "or false\n"
            "job.textproto:1:28: stpes: unknown field 'stpes' in trireme.Job; "
            "did you mean 'steps'?");
  EXPECT_NE(ErrorOf("name: \"flowers\nsteps: 1"), "no error");
}

TEST(TextProto, BoundsHostileText) {
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "x { ";
  EXPECT_NE(ErrorOf(deep), "no error");
  std::string wrong;
  for (int i = 0; i < 10'000; ++i) wrong += "hiden: 1\n";
  EXPECT_LT(ErrorOf(wrong).size(), 10'000u);
  EXPECT_NE(ErrorOf(std::string("\0\xff\x01", 3)), "no error");
  EXPECT_NE(ErrorOf(std::string((16 << 20) + 1, ' ')), "no error");
}

TEST(TextProto, LocatesTheFieldOrItsNearestParent) {
  Plan plan;
  const auto locations = ParseTextProto(
      "version: 1\n"
      "grid {\n"
      "  tp: 3 }\n"
      "stages { blocks: 1 }\n"
      "stages {\n"
      "  blocks: 0\n"
      "}\n"
      "placement: [0,\n"
      "  0]\n",
      "plan.textproto", &plan);
  ASSERT_TRUE(locations.ok()) << locations.status();
  const auto locate = [&](const std::string& message) {
    const absl::Status status =
        locations->Locate(absl::InvalidArgumentError(message));
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    return MessageOf(status);
  };
  EXPECT_EQ(locate("plan.grid.tp: bad"), "plan.textproto:3: plan.grid.tp: bad");
  EXPECT_EQ(locate("grid.tp: bad"), "plan.textproto:3: grid.tp: bad");
  EXPECT_EQ(locate("grid.cp: bad"), "plan.textproto:2: grid.cp: bad");
  EXPECT_EQ(locate("stages[1].blocks: bad"),
            "plan.textproto:6: stages[1].blocks: bad");
  EXPECT_EQ(locate("stages[7].blocks: bad"),
            "plan.textproto:4: stages[7].blocks: bad");
  EXPECT_EQ(locate("placement[1]: bad"), "plan.textproto:9: placement[1]: bad");
  EXPECT_EQ(locate("microbatches: bad"), "plan.textproto: microbatches: bad");
  EXPECT_EQ(locate("no default plan: bad"), "no default plan: bad");
  EXPECT_EQ(locate("ranks: bad"), "ranks: bad");
  EXPECT_TRUE(locations->Locate(absl::OkStatus()).ok());
}

TEST(TextProto, LocatesWhatTheCommandLineSetThere) {
  Job job;
  auto locations = ParseTextProto(
      "steps: 3\nmodel {\n dit {\n  hidden: 5\n } }", "job.textproto", &job);
  ASSERT_TRUE(locations.ok()) << locations.status();
  locations->NoteOverride("steps=4");
  locations->NoteOverride("model.dit={heads: 2}");
  const auto locate = [&](const std::string& message) {
    return MessageOf(locations->Locate(absl::InvalidArgumentError(message)));
  };
  EXPECT_EQ(locate("steps: bad"), "--set steps=4: steps: bad");
  EXPECT_EQ(locate("model.dit.hidden: bad"),
            "--set model.dit={heads: 2}: model.dit.hidden: bad");
  EXPECT_EQ(locate("model: bad"), "job.textproto:2: model: bad");
}

TEST(TextProto, WritesAFileThatReadsBackTheSame) {
  Job job;
  ASSERT_TRUE(ParseTextProto(kJob, "job.textproto", &job).ok());
  job.set_name("Blüten \"1\"\n");
  const std::string path = testing::TempDir() + "/written.textproto";
  ASSERT_TRUE(WriteTextProtoFile(job, path).ok());
  Job back;
  const auto locations = ParseTextProtoFile(path, &back);
  ASSERT_TRUE(locations.ok()) << locations.status();
  EXPECT_TRUE(MessageDifferencer::Equals(job, back));
  EXPECT_EQ(MessageOf(locations->Locate(absl::InvalidArgumentError("name: x"))),
            path + ":1: name: x");
}

TEST(TextProto, ReadsJsonByTheEndOfTheName) {
  const std::string path = testing::TempDir() + "/job.json";
  ASSERT_TRUE(WriteFileAtomically(
                  path, "{\"globalBatch\": 4,\n \"precision\": \"FP32\"}")
                  .ok());
  Job job;
  const auto locations = ParseTextProtoFile(path, &job);
  ASSERT_TRUE(locations.ok()) << locations.status();
  EXPECT_EQ(job.global_batch(), 4u);
  EXPECT_EQ(job.precision(), Job::FP32);
  EXPECT_EQ(
      MessageOf(locations->Locate(absl::InvalidArgumentError("steps: bad"))),
      path + ": steps: bad");
  EXPECT_EQ(MessageOf(locations->Locate(
                absl::InvalidArgumentError("precision: bad"))),
            path + ":2: precision: bad");
}

TEST(TextProto, JsonErrorsSayWhereAndWhatWasExpected) {
  const std::string path = testing::TempDir() + "/wrong.json";
  const auto errors = [&](std::string_view text) {
    EXPECT_TRUE(WriteFileAtomically(path, text).ok());
    Job job;
    std::string message = MessageOf(ParseTextProtoFile(path, &job).status());
    // Without the name of the file.
    for (size_t at; (at = message.find(path)) != std::string::npos;) {
      message.erase(at, path.size());
    }
    return message;
  };
  EXPECT_EQ(errors(R"({
  "globalBtch": 4,
  "model": {
    "dit": {"hiden": 3, "layers": "many",
            "heads": -1}
  },
  "precision": "FP31",
  "steps": 1.5,
  "steps": 2
})"),
            ":2:1: globalBtch: unknown field 'globalBtch' in trireme.Job; did "
            "you mean 'global_batch'?\n"
            ":4:1: model.dit.hiden: unknown field 'hiden' in trireme.Dit; did "
            "you mean 'hidden'?\n"
            ":4:1: model.dit.layers: found \"many\", expected an integer from "
            "0 to 4294967295\n"
            ":5:1: model.dit.heads: found -1, expected an integer from 0 to "
            "4294967295\n"
            ":7:1: precision: found \"FP31\", expected one of BF16, FP32, "
            "FP64, FP16\n"
            ":8:1: steps: found 1.5, expected an integer from 0 to "
            "4294967295\n"
            ":9:1: steps: found a second time, expected it once");
  EXPECT_EQ(errors(R"({
  "data": {
    "idx": {"classNames": ["a", null]},
    "imageFolder": {}
  },
  "steps": [1],
  "globalBatch": {},
  "precision": 77,
  "name": true
})"),
            ":3:1: data.idx.class_names[1]: found null, expected a string in "
            "quotes\n"
            ":4:1: data.image_folder: found beside 'idx', expected only one of "
            "them, as they are choices of 'source'\n"
            ":6:1: steps: found a list, expected an integer from 0 to "
            "4294967295\n"
            ":7:1: global_batch: found an object, expected an integer from 0 "
            "to 4294967295\n"
            ":8:1: precision: found 77, expected one of BF16, FP32, FP64, "
            "FP16\n"
            ":9:1: name: found true, expected a string in quotes");
  EXPECT_EQ(errors(R"({"data": {"idx": {"classNames": "a"}}})"),
            ":1:1: data.idx.class_names: found \"a\", expected a list, each a "
            "string in quotes");
  EXPECT_TRUE(errors("{\n \"name\": \"a\"\n \"steps\": 3\n}")
                  .starts_with(":3:8: syntax error"));
  EXPECT_EQ(errors("[]"),
            ":1:1: found a list, expected the fields of a trireme.Job");
  EXPECT_TRUE(errors(std::string(100000, '[')).starts_with(":1:1: found"));
}

TEST(TextProto, NamesAFileThatIsNotThere) {
  Job job;
  const std::string path = testing::TempDir() + "/nowhere.textproto";
  const absl::Status status = ParseTextProtoFile(path, &job).status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_NE(MessageOf(status).find(path), std::string::npos);
}

}  // namespace
}  // namespace trireme
