#include "tools/cli/command.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {

CommandSpec Train() {
  CommandSpec spec;
  spec.name = "train";
  spec.summary = "Trains a job.";
  spec.positionals = {{"JOB", "the job's file"}};
  spec.options = {
      {"plan", "FILE", "", "The plan.", false},
      {"steps", "N", "100", "Steps.", false},
      {"rate", "X", "1e-4", "Learning rate.", false},
      {"set", "FIELD=VALUE", "", "Changes a field.", true},
      {"resume", "", "", "Goes on from the newest checkpoint.", false},
  };
  spec.example = "trireme train job.textproto --steps 10";
  return spec;
}

std::string ErrorOf(const CommandSpec& spec,
                    const std::vector<std::string>& args) {
  const auto parsed = ParseCommand(spec, args);
  return parsed.ok() ? "no error" : std::string(parsed.status().message());
}

TEST(Command, ReadsBothSpellingsOfAnOptionAndFlagsAnywhere) {
  const auto parsed = ParseCommand(
      Train(), {"--steps", "10", "a.textproto", "--plan=p=q", "--resume"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed->GetInt("steps"), 10);
  EXPECT_EQ(parsed->Get("plan"), "p=q");
  EXPECT_TRUE(parsed->Has("resume"));
  EXPECT_EQ(parsed->positionals(), std::vector<std::string>{"a.textproto"});
}

TEST(Command, FallsBackToDefaultsAndSaysWhatWasGiven) {
  const auto parsed = ParseCommand(Train(), {"a"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_FALSE(parsed->Has("steps"));
  EXPECT_FALSE(parsed->Has("resume"));
  EXPECT_EQ(*parsed->GetInt("steps"), 100);
  EXPECT_EQ(*parsed->GetDouble("rate"), 1e-4);
  EXPECT_TRUE(parsed->All("set").empty());
  EXPECT_EQ(parsed->All("steps"), std::vector<std::string>{"100"});
}

TEST(Command, KeepsRepeatedOptionsInOrder) {
  const auto parsed =
      ParseCommand(Train(), {"a", "--set", "b=1", "--set=c=-2"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->All("set"), (std::vector<std::string>{"b=1", "c=-2"}));
}

TEST(Command, NegativeNumbersAreValuesAndArguments) {
  CommandSpec spec = Train();
  const auto parsed = ParseCommand(spec, {"-1", "--steps", "-5"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed->GetInt("steps"), -5);
  EXPECT_EQ(parsed->positionals()[0], "-1");
}

TEST(Command, TwoDashesEndTheOptions) {
  const auto parsed = ParseCommand(Train(), {"--", "--steps"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->positionals(), std::vector<std::string>{"--steps"});
}

TEST(Command, NamesTheNearestOptionOrAll) {
  EXPECT_EQ(ErrorOf(Train(), {"a", "--step=1"}),
            "train: found --step, which is no option; did you mean --steps?");
  EXPECT_EQ(ErrorOf(Train(), {"a", "-steps", "1"}),
            "train: found --steps, which is no option; did you mean --steps?");
  EXPECT_EQ(ErrorOf(Train(), {"a", "--banana"}),
            "train: found --banana, which is no option; expected one of "
            "--plan, --steps, --rate, --set, --resume");
}

TEST(Command, SaysWhatIsMissingOrTooMuch) {
  EXPECT_EQ(ErrorOf(Train(), {}),
            "train: found no argument, expected JOB (the job's file)");
  EXPECT_EQ(ErrorOf(Train(), {"a", "b"}),
            "train: found 'b', expected at most 1 argument");
  EXPECT_EQ(ErrorOf(Train(), {"a", "--steps"}),
            "train: found nothing after --steps, expected --steps N");
  EXPECT_EQ(ErrorOf(Train(), {"a", "--steps", "--resume"}),
            "train: found '--resume' after --steps, expected --steps N");
  EXPECT_EQ(ErrorOf(Train(), {"a", "--resume=yes"}),
            "train: found '--resume=yes', expected --resume without a value");
  EXPECT_EQ(ErrorOf(Train(), {"a", "--steps=1", "--steps=2"}),
            "train: found --steps twice ('1' and '2'), expected it once");
}

TEST(Command, RequiredOptionsAreMarkedAndMissed) {
  CommandSpec spec = Train();
  spec.options[0].required = true;
  EXPECT_EQ(ErrorOf(spec, {"a"}),
            "train: found no --plan, expected --plan FILE (The plan.)");
  EXPECT_TRUE(ParseCommand(spec, {"a", "--plan", "p"}).ok());
  const std::string help = HelpText(spec);
  EXPECT_EQ(help.find("Usage: trireme train JOB --plan FILE [options]"), 0u)
      << help;
  EXPECT_NE(help.find("The plan. (required)"), std::string::npos) << help;
}

TEST(Command, OptionalAndRepeatedArguments) {
  CommandSpec spec = Train();
  spec.positionals = {{"RUN", "a run's folder", false, true}};
  EXPECT_TRUE(ParseCommand(spec, {}).ok());
  const auto parsed = ParseCommand(spec, {"a", "b", "c"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->positionals().size(), 3u);
}

TEST(Command, RefusesNumbersThatAreNone) {
  const auto parsed = ParseCommand(Train(), {"a", "--steps=10x", "--rate=nan"});
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->GetInt("steps").status().message(),
            "--steps: found '10x', expected an integer");
  EXPECT_EQ(parsed->GetDouble("rate").status().message(),
            "--rate: found 'nan', expected a finite number");
  const auto large =
      ParseCommand(Train(), {"a", "--steps=9223372036854775808"});
  ASSERT_TRUE(large.ok()) << large.status();
  EXPECT_FALSE(large->GetInt("steps").ok());
}

TEST(Command, SizesHaveUnitsOfPowersOfTwoAndTen) {
  const auto bytes_of = [](const std::string& text) {
    return ParseCommand(Train(), {"a", "--plan=" + text})->GetBytes("plan");
  };
  EXPECT_EQ(*bytes_of("12GiB"), int64_t{12} << 30);
  EXPECT_EQ(*bytes_of("500MB"), 500'000'000);
  EXPECT_EQ(*bytes_of("4096"), 4096);
  for (const char* text : {"", "0", "-1GB", "GiB", "1.5GB", "9999999999GiB"}) {
    EXPECT_EQ(bytes_of(text).status().message(),
              "--plan: found '" + std::string(text) +
                  "', expected a size as 500MB or 12GiB");
  }
}

TEST(Command, HelpShowsEverythingTheCommandAccepts) {
  EXPECT_EQ(HelpText(Train()),
            "Usage: trireme train JOB [options]\n"
            "\n"
            "Trains a job.\n"
            "\n"
            "Arguments:\n"
            "  JOB  the job's file\n"
            "\n"
            "Options:\n"
            "  --plan FILE        The plan.\n"
            "  --steps N          Steps. (default: 100)\n"
            "  --rate X           Learning rate. (default: 1e-4)\n"
            "  --set FIELD=VALUE  Changes a field. (may be repeated)\n"
            "  --resume           Goes on from the newest checkpoint.\n"
            "\n"
            "Example:\n"
            "  trireme train job.textproto --steps 10\n");
}

TEST(Command, HelpFitsEightyColumns) {
  CommandSpec spec = Train();
  for (int i = 0; i < 40; ++i) spec.options[0].help += " word";
  const std::string help = HelpText(spec);
  size_t start = 0;
  while (start < help.size()) {
    const size_t end = help.find('\n', start);
    EXPECT_LE(end - start, 80u) << help.substr(start, end - start);
    start = end + 1;
  }
}

}  // namespace
}  // namespace trireme
