// What the validator finds in Programs whose units do not stay on the device.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/status.h"
#include "scheduler/program/offload_pass.h"
#include "scheduler/program/program_builder.h"
#include "scheduler/program/validator.h"
#include "scheduler/schedules/orders.h"

namespace trireme {
namespace {

// Four units, of which two are on the device at once; one microbatch.
Program Offloaded() {
  return OffloadUnits(
      BuildProgram(OneFOneBOrder(1, 1), OneStagePerRank(1), 1, {4}), 2);
}

int32_t Find(const Program& program, const std::string& text) {
  const std::vector<Instruction>& list = program.ranks[0];
  for (size_t i = 0; i < list.size(); ++i) {
    if (ToText(list[i]) == text) return static_cast<int32_t>(i);
  }
  ADD_FAILURE() << "no " << text << " in\n" << ToText(program);
  return 0;
}

void Forget(Program& program, int32_t index, int32_t dependency) {
  auto& depends_on = program.ranks[0][index].depends_on;
  const auto at = std::find(depends_on.begin(), depends_on.end(), dependency);
  ASSERT_NE(at, depends_on.end());
  depends_on.erase(at);
}

void ExpectError(const Program& program, const std::string& part) {
  const absl::Status status = ValidateProgram(program);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(MessageOf(status).find(part), std::string::npos)
      << MessageOf(status) << "\nlacks: " << part;
}

constexpr char kForward2[] = "Forward mb=0 chunk=0 unit=2";
constexpr char kFetch2[] = "Fetch chunk=0 unit=2";
constexpr char kFetch3[] = "Fetch chunk=0 unit=3";
constexpr char kRelease0[] = "Release chunk=0 unit=0";
constexpr char kSave3[] = "SaveGradients mb=0 chunk=0 unit=3";

TEST(Residency, AUnitThatIsNotFetchedIsFound) {
  Program program = Offloaded();
  // Another comes in its place.
  program.ranks[0][Find(program, kFetch2)].unit = 0;
  ExpectError(program, "'Forward mb=0 chunk=0 unit=2': found its unit not on");
}

TEST(Residency, AUnitThatIsUsedBeforeItHasArrivedIsFound) {
  Program program = Offloaded();
  Forget(program, Find(program, kForward2), Find(program, kFetch2));
  ExpectError(program, "found no dependency on its unit's Fetch");
}

TEST(Residency, AUnitThatIsDroppedWhileItIsUsedIsFound) {
  Program program = Offloaded();
  Forget(program, Find(program, kRelease0),
         Find(program, "Forward mb=0 chunk=0 unit=0"));
  ExpectError(program, "found no dependency on its unit's last use");
}

TEST(Residency, AUnitTooManyIsFound) {
  Program program = Offloaded();
  Forget(program, Find(program, kFetch2), Find(program, kRelease0));
  ExpectError(program, "'Fetch chunk=0 unit=2': found no place on the device");
}

TEST(Residency, AUnitThatIsFetchedTwiceIsFound) {
  Program program = Offloaded();
  program.ranks[0][Find(program, kFetch3)].unit = 2;
  ExpectError(program,
              "'Fetch chunk=0 unit=2': found its unit on the device already");
}

TEST(Residency, AReleaseOfWhatIsNotThereIsFound) {
  Program program = Offloaded();
  program.ranks[0][Find(program, kRelease0)].unit = 3;
  ExpectError(program,
              "'Release chunk=0 unit=3': found its unit not on the device");
}

TEST(Residency, ParametersFromBeforeTheUpdateAreFound) {
  Program program = Offloaded();
  const int32_t update = Find(program, "Update chunk=0 bucket=3 unit=0");
  const int32_t fetch = update + 1;
  ASSERT_EQ(ToText(program.ranks[0][fetch]), "Fetch chunk=0 unit=0");
  Forget(program, fetch, update);
  ExpectError(program, "found no dependency on its unit's Update");
  std::swap(program.ranks[0][update], program.ranks[0][fetch]);
  ExpectError(program, "found no Update of its unit before it");
}

TEST(Residency, AnUpdateOfTheStepsOwnGradientsIsFound) {
  Program program = Offloaded();
  std::vector<Instruction>& list = program.ranks[0];
  const int32_t first = Find(program, "Update chunk=0 bucket=3 unit=0");
  Instruction update =
      std::exchange(list[first], MakeUnitCopy(InstructionKind::kRelease, {}));
  list.push_back(std::move(update));
  ExpectError(program, "found it after ClipGradients");
}

TEST(Residency, AUnitThatStaysIsFound) {
  Program program = Offloaded();
  std::vector<Instruction>& list = program.ranks[0];
  const int32_t clip = Find(program, "ClipGradients");
  ASSERT_EQ(list[clip - 1].kind, InstructionKind::kRelease);
  list.erase(list.begin() + clip - 1);
  ExpectError(program, "rank 0 at the end: found chunk 0 unit");
}

TEST(Residency, GradientsThatStayOnTheDeviceAreFound) {
  Program program = Offloaded();
  const int32_t save = Find(program, kSave3);
  program.ranks[0][save].unit = 2;
  ExpectError(program,
              "'SaveGradients mb=0 chunk=0 unit=2': found no Backward");
}

TEST(Residency, GradientsThatAreOverwrittenAreFound) {
  Program program = Offloaded();
  // Two buffers: the third backward takes that of the first.
  Forget(program, Find(program, "Backward mb=0 chunk=0 unit=1"),
         Find(program, kSave3));
  ExpectError(program, "found no dependency that frees a buffer");
}

TEST(Residency, GradientsThatLeaveBeforeAllMicrobatchesHaveAddedAreFound) {
  Program program =
      OffloadUnits(BuildProgram(GPipeOrder(1, 2), OneStagePerRank(1), 2, {4}),
                   2, {.unit_major = true});
  EXPECT_TRUE(ValidateProgram(program).ok());
  const int32_t save = Find(program, "SaveGradients mb=1 chunk=0 unit=3");
  program.ranks[0][save].microbatch = 0;
  ExpectError(program,
              "'SaveGradients mb=0 chunk=0 unit=3': found no Backward");
}

TEST(Residency, ClippingBeforeTheGradientsAreThereIsFound) {
  Program program = Offloaded();
  Forget(program, Find(program, "ClipGradients"),
         Find(program, "SaveGradients mb=0 chunk=0 unit=0"));
  ExpectError(program, "found no dependency on a unit's last SaveGradients");
}

constexpr char kSaveInput0[] = "SaveActivation mb=0 chunk=0 unit=0";
constexpr char kLoadInput0[] = "LoadActivation mb=0 chunk=0 unit=0";
constexpr char kBackward0[] = "Backward mb=0 chunk=0 unit=0";

// Of the four units' inputs the first two leave.
Program WithActivations() {
  return OffloadUnits(
      BuildProgram(OneFOneBOrder(1, 1), OneStagePerRank(1), 1, {4}), 2,
      {.activations = true});
}

TEST(Residency, AnInputThatIsUsedBeforeItIsBackIsFound) {
  Program program = WithActivations();
  EXPECT_TRUE(ValidateProgram(program).ok());
  Forget(program, Find(program, kBackward0), Find(program, kLoadInput0));
  ExpectError(program, "found no dependency on its LoadActivation");
  program = WithActivations();
  // Another leaves in place of that.
  Instruction save = MakeUnitCopy(InstructionKind::kSaveActivation,
                                  {.chunk = 0, .unit = 2}, /*microbatch=*/0);
  save.depends_on.push_back(Find(program, kForward2));
  program.ranks[0][Find(program, "LoadActivation mb=0 chunk=0 unit=1")] = save;
  ExpectError(program, "unit=2': found its input away since instruction");
}

TEST(Residency, AnInputThatLeavesBeforeItsForwardHasUsedItIsFound) {
  Program program = WithActivations();
  Forget(program, Find(program, kSaveInput0),
         Find(program, "Forward mb=0 chunk=0 unit=0"));
  ExpectError(program, "found no dependency on the Forward that it is of");
  program = WithActivations();
  program.ranks[0][Find(program, kSaveInput0)].unit = 3;
  ExpectError(program, "found no Forward whose input is there");
}

TEST(Residency, AnInputThatLeavesTwiceIsFound) {
  Program program = WithActivations();
  const int32_t first = Find(program, kSaveInput0);
  Instruction& second =
      program.ranks[0][Find(program, "SaveActivation mb=0 chunk=0 unit=1")];
  second.unit = 0;
  ExpectError(program, "found it after instruction " + std::to_string(first));
}

TEST(Residency, AnInputThatComesBackBeforeItHasLeftIsFound) {
  Program program = WithActivations();
  Forget(program, Find(program, kLoadInput0), Find(program, kSaveInput0));
  ExpectError(program, "found no dependency on its SaveActivation");
  program = WithActivations();
  program.ranks[0][Find(program, kLoadInput0)].unit = 3;
  ExpectError(program, "found no SaveActivation that it brings back");
}

TEST(Residency, UnitsInTheWrongOrderAreFound) {
  Program program = Offloaded();
  program.ranks[0][Find(program, "Forward mb=0 chunk=0 unit=1")].unit = 0;
  ExpectError(program, "found unit 0, expected unit 1 next");
}

TEST(Residency, AUnitThatTheChunkDoesNotHaveIsFound) {
  Program program = Offloaded();
  program.ranks[0][Find(program, kFetch2)].unit = 4;
  ExpectError(program, "found unit 4, expected 0 to 3");
  program = Offloaded();
  program.offload.reset();
  ExpectError(program, "found unit 0, expected none");
}

}  // namespace
}  // namespace trireme
