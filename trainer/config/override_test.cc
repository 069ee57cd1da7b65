#include <gtest/gtest.h>

#include <string>

#include "runtime/core/status.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/config/textproto.h"
#include "trainer/job/job.pb.h"

namespace trireme {
namespace {

std::string ErrorOf(const std::string& assignment,
                    google::protobuf::Message* message) {
  const std::string before = message->SerializeAsString();
  const absl::Status status = ApplyOverride(assignment, message);
  EXPECT_EQ(message->SerializeAsString(), before) << "changed by an error";
  return status.ok() ? "no error" : MessageOf(status);
}

std::string ErrorOf(const std::string& assignment) {
  Job job;
  job.set_seed(7);
  return ErrorOf(assignment, &job);
}

Plan TwoStages() {
  Plan plan;
  plan.add_stages()->set_blocks(1);
  plan.add_stages()->set_blocks(2);
  plan.add_placement(0);
  plan.add_placement(1);
  return plan;
}

TEST(Override, SetsFieldsOfEveryKind) {
  Job job;
  for (const char* assignment :
       {"optimizer.learning_rate=1e-3", "precision=FP32", "name=two words",
        "model.dit.qk_norm=false", "optimizer.beta1=-0.5",
        "data.idx.folder='a=b'", "data.idx.split=\"te\\x73t\""}) {
    const absl::Status status = ApplyOverride(assignment, &job);
    EXPECT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(job.optimizer().learning_rate(), 1e-3);
  EXPECT_EQ(job.optimizer().beta1(), -0.5);
  EXPECT_EQ(job.precision(), Job::FP32);
  EXPECT_EQ(job.name(), "two words");
  EXPECT_TRUE(job.model().dit().has_qk_norm());
  EXPECT_FALSE(job.model().dit().qk_norm());
  EXPECT_EQ(job.data().idx().folder(), "a=b");
  EXPECT_EQ(job.data().idx().split(), "test");
}

TEST(Override, SetsAFieldBackToZero) {
  Job job;
  job.set_seed(7);
  ASSERT_TRUE(ApplyOverride("seed=0", &job).ok());
  EXPECT_EQ(job.seed(), 0u);
}

TEST(Override, ReplacesWholeMessagesAndOtherChoices) {
  Job job;
  job.mutable_model()->mutable_dit()->set_heads(2);
  job.mutable_data()->mutable_idx()->set_folder("a");
  ASSERT_TRUE(ApplyOverride("model={dit { hidden: 64 }}", &job).ok());
  EXPECT_EQ(job.model().dit().hidden(), 64u);
  EXPECT_FALSE(job.model().dit().has_heads());
  ASSERT_TRUE(ApplyOverride("data.image_folder.path=b", &job).ok());
  EXPECT_FALSE(job.data().has_idx());
}

TEST(Override, ChangesAddsAndReplacesElements) {
  Plan plan = TwoStages();
  ASSERT_TRUE(ApplyOverride("stages[0].blocks=3", &plan).ok());
  ASSERT_TRUE(ApplyOverride("stages+={blocks: 4}", &plan).ok());
  ASSERT_EQ(plan.stages_size(), 3);
  EXPECT_EQ(plan.stages(0).blocks(), 3u);
  EXPECT_EQ(plan.stages(1).blocks(), 2u);
  EXPECT_EQ(plan.stages(2).blocks(), 4u);
  ASSERT_TRUE(ApplyOverride("stages[1]={}", &plan).ok());
  ASSERT_EQ(plan.stages_size(), 3);
  EXPECT_EQ(plan.stages(1).blocks(), 0u);
  ASSERT_TRUE(ApplyOverride("placement[0]=5", &plan).ok());
  ASSERT_TRUE(ApplyOverride("placement+=[6, 7]", &plan).ok());
  ASSERT_EQ(plan.placement_size(), 4);
  EXPECT_EQ(plan.placement(0), 5u);
  EXPECT_EQ(plan.placement(1), 1u);
  EXPECT_EQ(plan.placement(3), 7u);
  ASSERT_TRUE(ApplyOverride("placement=[]", &plan).ok());
  EXPECT_EQ(plan.placement_size(), 0);
}

TEST(Override, AddsStringsWithoutQuotes) {
  Job job;
  ASSERT_TRUE(ApplyOverride("data.idx.class_names+=a b", &job).ok());
  ASSERT_TRUE(ApplyOverride("data.idx.class_names+=['c', 'd']", &job).ok());
  ASSERT_EQ(job.data().idx().class_names_size(), 3);
  EXPECT_EQ(job.data().idx().class_names(0), "a b");
}

TEST(Override, NamesTheNearestFieldAndValue) {
  EXPECT_EQ(ErrorOf("optimzer.lr=1"),
            "--set optimzer.lr=1: unknown field 'optimzer' in trireme.Job; did "
            "you mean 'optimizer'?");
  EXPECT_EQ(ErrorOf("model.dit.hiden=1"),
            "--set model.dit.hiden=1: unknown field 'hiden' in trireme.Dit; "
            "did you mean 'hidden'?");
  // The messages that a field lies in are easily forgotten.
  EXPECT_EQ(ErrorOf("learning_rate=3"),
            "--set learning_rate=3: unknown field 'learning_rate' in "
            "trireme.Job; did you mean 'optimizer.learning_rate'?");
  EXPECT_EQ(ErrorOf("model.layrs=3"),
            "--set model.layrs=3: unknown field 'layrs' in trireme.Model; did "
            "you mean 'model.dit.layers' or 'model.hidream.text.layers' or "
            "'model.triposg.layers' or 'model.mesh_tokens.layers' or "
            "'model.sparse_dit.layers'?");
  EXPECT_EQ(ErrorOf("evry=3"),
            "--set evry=3: unknown field 'evry' in trireme.Job; did you mean "
            "'model.dit.moe.every' or 'model.mmdit.moe.every' or "
            "'model.hidream.moe.every' or 'model.triposg.moe.every' or "
            "'model.swin.moe.every' or 'checkpoint.every' or 'log.every' or "
            "'sample.every' or 'validation.every'?");
  EXPECT_EQ(
      ErrorOf("model={dit {hiden: 1}}"),
      "--set model={dit {hiden: 1}}: model.dit.hiden: unknown field 'hiden' in "
      "trireme.Dit; did you mean 'hidden'?");
  EXPECT_EQ(ErrorOf("precision=fp32"),
            "--set precision=fp32: precision: found 'fp32', expected one of "
            "BF16, FP32, FP64, FP16; did you mean FP32?");
}

TEST(Override, SaysWhatOfTheWrongKindWasFound) {
  EXPECT_EQ(ErrorOf("model.dit.hidden=wide"),
            "--set model.dit.hidden=wide: model.dit.hidden: found 'wide', "
            "expected an integer from 0 to 4294967295");
  EXPECT_EQ(ErrorOf("steps"),
            "--set steps: found no '=', expected FIELD=VALUE");
  EXPECT_EQ(ErrorOf("steps.x=1"),
            "--set steps.x=1: found a field of 'steps', expected none, as it "
            "is no message");
  EXPECT_EQ(ErrorOf("steps+=1"),
            "--set steps+=1: found '+=' for 'steps', expected '=', as it is no "
            "repeated field");
  EXPECT_EQ(ErrorOf("steps=1 seed: 2"),
            "--set steps=1 seed: 2: steps: found '1 seed: 2', expected one "
            "value");
  for (const char* assignment :
       {"=1", ".steps=1", "model..dit={}", "steps[0]=1", "steps=", "model[x]=1",
        "steps=1 }", "model={"}) {
    EXPECT_NE(ErrorOf(assignment), "no error") << assignment;
  }
}

TEST(Override, ChecksIndices) {
  Plan plan = TwoStages();
  EXPECT_EQ(ErrorOf("stages[2].blocks=1", &plan),
            "--set stages[2].blocks=1: found index 2 of 'stages', expected one "
            "below 2, its number of elements");
  EXPECT_EQ(ErrorOf("stages.blocks=1", &plan),
            "--set stages.blocks=1: found a field of all of 'stages', expected "
            "an index as in stages[0]");
  for (const char* assignment :
       {"stages[-1].blocks=1", "stages[99999999999].blocks=1",
        "stages[0]x.blocks=1", "placement[0]=[1, 2]", "placement[0]=[]"}) {
    EXPECT_NE(ErrorOf(assignment, &plan), "no error") << assignment;
  }
}

}  // namespace
}  // namespace trireme
